"""`stoke schema`: the JSON schema of a request."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the JSON schema of a request.

    `stoke submit` reads such requests. Editors complete and check them with the schema, and programs
    make them from it.

    \b
    stoke schema > request.schema.json
    """
    from stoke.cli.output import print_json
    from stoke.request.schema import request_schema

    print_json(request_schema())
