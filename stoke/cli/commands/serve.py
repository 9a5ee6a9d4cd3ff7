"""`stoke serve`: the screens in a browser."""

from __future__ import annotations

from typing import Any

import click

from stoke.cli.listening_options import listening_options, with_options
from stoke.cli.output import print_notice
from stoke.errors import EngineError


@click.command()
@listening_options(8766)
def command(without_tls: bool, **options: Any) -> None:
    """Serve the screens to a browser.

    They run in the folder where this command does. The page asks for a token with the right admin:
    whoever has it can do there what you can do at a terminal. Only this machine is served by
    default. Screens whose tab is closed wait half a minute for it to come back.

    \b
    stoke api token add browser --right admin
    stoke serve
    stoke serve --host 0.0.0.0 --certificate cert.pem --key key.pem
    """
    from stoke.config.loader import load_config

    _require_extra()
    from stoke.api.listening import Server
    from stoke.serve.server import check_listening, serve

    config = with_options(load_config().serve, options)
    check_listening(config, without_tls=without_tls)

    def started(address: str, _: Server) -> None:
        print_notice(f"serving the screens at {address}; ctrl+c ends them, and jobs run on")

    serve(config, started)


def _require_extra() -> None:
    """Raise `EngineError` if the packages of the extra are missing."""
    try:
        import starlette
        import uvicorn
        import websockets
    except ImportError as error:
        raise EngineError(
            f"the server needs the packages of the serve extra: {error}",
            "install them: uv tool install 'stoke-tui[serve]'",
        ) from None
    del starlette, uvicorn, websockets
