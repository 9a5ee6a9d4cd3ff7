"""Serve jobs over HTTP until the server is told to stop."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from stoke.api.app import make_app
from stoke.api.listening import Server, check_host, listen, run_server, tls_context
from stoke.api.protocol import uvicorn_options
from stoke.api.server_state import Api
from stoke.api.tokens import TokenFile
from stoke.config.model import ApiConfig, Config
from stoke.errors import RequestError


def check_listening(config: ApiConfig, *, without_tls: bool) -> None:
    """Raise `RequestError` unless the server may listen as it is configured.

    It needs a token everywhere, and TLS on addresses that other machines reach.
    """
    if not TokenFile().all():
        raise RequestError(
            "token",
            "there is none yet, so no client could use the server",
            "make one: stoke api token add me",
        )
    check_host(config, "api", without_tls=without_tls)


def serve(config: Config, started: Callable[[str, Server], None]) -> None:
    """Serve until a signal or `Server.stop`. `started` is called with the address and the server.

    Raises `EngineError` if the address cannot be listened on or the certificate cannot be read.
    """
    settings = config.api
    # The event loop gets its turn sooner among threads that compute: 5 ms is the default.
    sys.setswitchinterval(0.001)
    context = tls_context(settings)
    listening = listen(settings, "api")
    try:
        api = Api(config)
        api.prepare()
        app = make_app(api)

        def begin(address: str, server: Server) -> None:
            api.loop = asyncio.get_running_loop()
            started(address, server)

        run_server(app, uvicorn_options(), settings, listening, context, api.stop, begin)
    finally:
        listening.close()
