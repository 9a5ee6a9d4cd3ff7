"""Serve the screens until the server is told to stop."""

from __future__ import annotations

from collections.abc import Callable

from stoke.api.listening import Server, check_host, listen, run_server, tls_context
from stoke.api.protocol import uvicorn_options
from stoke.api.tokens import TokenFile
from stoke.config.model import ServeConfig
from stoke.errors import RequestError
from stoke.serve.app import Screens, make_app
from stoke.serve.logins import may_open

MAX_MESSAGE = 1024**2
"""Bytes of one message of a page. It sends what is pasted in smaller pieces."""


def check_listening(config: ServeConfig, *, without_tls: bool) -> None:
    """Raise `RequestError` unless the server may listen as it is configured.

    It needs a token that opens the screens, and TLS on addresses that other machines reach.
    """
    if not any(may_open(token) for token in TokenFile().all()):
        raise RequestError(
            "token",
            "none opens the screens, which takes the right admin for all scopes",
            "make one: stoke api token add browser --right admin",
        )
    check_host(config, "serve", without_tls=without_tls)


def serve(config: ServeConfig, started: Callable[[str, Server], None]) -> None:
    """Serve until a signal or `Server.stop`. `started` is called with the address and the server.

    Raises `EngineError` if the address cannot be listened on or the certificate cannot be read.
    """
    context = tls_context(config)
    listening = listen(config, "serve")
    try:
        port = listening.getsockname()[1]
        app = make_app(Screens(config, port, has_tls=context is not None))
        options = uvicorn_options(ws="websockets-sansio", ws_max_size=MAX_MESSAGE)
        run_server(app, options, config, listening, context, lambda: None, started)
    finally:
        listening.close()
