"""`stoke api`: serve jobs over HTTP."""

from __future__ import annotations

from typing import Any

import click

from stoke.api.tokens import RIGHTS, TokenFile
from stoke.cli.listening_options import listening_options, with_options
from stoke.cli.output import human_time, print_json, print_notice, print_table
from stoke.errors import EngineError


@click.group(invoke_without_command=True)
@listening_options(8765)
@click.pass_context
def command(ctx: click.Context, /, without_tls: bool, **options: Any) -> None:
    """Serve jobs over HTTP, for programs.

    Takes stoke's JSON and that of the earlier service (POST /api/v1/tasks/submit), with the
    configuration, backends and history of this user: a job that a client submits is in stoke jobs
    and on the screens at once. Clients need a token. Only this machine is served by default.

    \b
    stoke api token add me --right submit
    stoke api
    stoke api openapi > openapi.json
    """
    if ctx.invoked_subcommand is not None:
        return
    from stoke.config.loader import load_config

    _require_extra()
    from stoke.api.listening import Server
    from stoke.api.server import check_listening, serve

    config = load_config()
    config = config.model_copy(update={"api": with_options(config.api, options)})
    check_listening(config.api, without_tls=without_tls)

    def started(address: str, _: Server) -> None:
        print_notice(f"serving {address}; ctrl+c ends the server, and jobs run on")

    serve(config, started)


@command.group("token")
def token() -> None:
    """Make, list and remove the tokens of clients."""


@token.command("add")
@click.argument("name")
@click.option(
    "--right", type=click.Choice(RIGHTS), default="submit", show_default=True,
    help="read: see jobs; submit: also submit and stop them; admin: also prune and clear caches.",
)  # fmt: skip
@click.option("--scope", "scopes", multiple=True, metavar="SCOPE", help="Only jobs of this scope.")
def add(name: str, right: str, scopes: tuple[str, ...]) -> None:
    """Make a token and print it. It is not stored, and cannot be printed again.

    \b
    stoke api token add ci --right submit --scope team-a
    """
    click.echo(TokenFile().add(name, right, scopes))
    print_notice("send it as a header: Authorization: Bearer stoke_...")


@token.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_tokens(as_json: bool) -> None:
    """List the names of the tokens, with their rights.

    \b
    stoke api token ls
    """
    found = TokenFile().all()
    if as_json:
        print_json([{"name": one.name, "right": one.right, "scopes": one.scopes} for one in found])
    elif not found:
        print_notice("there are no tokens yet: stoke api token add me")
    else:
        print_table(
            ["NAME", "RIGHT", "SCOPES", "MADE"],
            [
                [one.name, one.right, ", ".join(one.scopes) or "all", human_time(one.made_at)]
                for one in found
            ],
        )


@token.command("rm")
@click.argument("name")
def remove(name: str) -> None:
    """Remove a token. Its clients are refused from their next request on.

    \b
    stoke api token rm ci
    """
    TokenFile().remove(name)
    print_notice(f"removed the token {name}")


@command.command("openapi")
def print_openapi() -> None:
    """Print the OpenAPI document of the server.

    \b
    stoke api openapi > openapi.json
    """
    _require_extra()
    from stoke.api.operations import document

    print_json(document())


def _require_extra() -> None:
    """Raise `EngineError` if the packages of the extra are missing."""
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise EngineError(
            f"the server needs the packages of the api extra: {error}",
            "install them: uv tool install 'stoke-tui[api]'",
        ) from None
    del starlette, uvicorn
