"""`stoke schema`: the JSON schema of a request."""

from __future__ import annotations

import click


@click.command()
def command() -> None:
    """Print the JSON schema of a request, as `stoke submit` reads it.

    For editors, which complete and check a request by it, and for programs that make requests.

    \b
    stoke schema > request.schema.json
    """
    from stoke.cli.output import print_json
    from stoke.request.schema import request_schema

    print_json(request_schema())
