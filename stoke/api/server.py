"""Listen and serve: which addresses are allowed, TLS, the end of the server."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import uvicorn

from stoke.api.app import make_app
from stoke.api.guard import host_names
from stoke.api.protocol import uvicorn_options
from stoke.api.server_state import Api
from stoke.api.tokens import TokenFile
from stoke.config.model import ApiConfig, Config
from stoke.errors import EngineError, RequestError

BACKLOG = 1024


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address, or every address of a name."""
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(
        ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses
    )


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
    if is_loopback(config.host) or config.certificate or without_tls:
        return
    raise RequestError(
        "host",
        f"other machines reach {config.host}, and without TLS they could read tokens on the way",
        "name a certificate: stoke api --certificate FILE --key FILE; or have a proxy do TLS: "
        "stoke api --without-tls",
    )


class Server(uvicorn.Server):
    """Tells the streams that the server stops, so that they end at once."""

    def __init__(self, config: uvicorn.Config, api: Api) -> None:
        super().__init__(config)
        self._api = api

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._api.stop()

    def stop(self) -> None:
        """End the server, from any thread."""
        self.should_exit = True
        self._api.stop()


def serve(config: Config, started: Callable[[str, Server], None]) -> None:
    """Serve until a signal or `Server.stop`. `started` is called with the address and the server.

    Raises `EngineError` if the address cannot be listened on or the certificate cannot be read.
    """
    settings = config.api
    # The event loop gets its turn sooner among threads that compute: 5 ms is the default.
    sys.setswitchinterval(0.001)
    context = _tls(settings)
    listening = _listen(settings.host, settings.port)
    try:
        port = listening.getsockname()[1]
        api = Api(config)
        api.prepare()
        app = make_app(api, host_names(settings.host, settings.hosts))
        options = uvicorn.Config(app, **uvicorn_options())
        if context is not None:
            options.ssl_context_factory = lambda *_: context
        server = Server(options, api)
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        address = f"{'https' if context else 'http'}://{shown}:{port}"
        asyncio.run(_run(server, api, listening, lambda: started(address, server)))
    finally:
        listening.close()


async def _run(
    server: Server, api: Api, listening: socket.socket, started: Callable[[], None]
) -> None:
    api.loop = asyncio.get_running_loop()
    started()
    await server.serve(sockets=[listening])


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        raise EngineError(
            f"cannot listen on {host} port {port}: {error.strerror}",
            "choose another port: stoke api --port 0",
        ) from error
    return listening


def _tls(settings: ApiConfig) -> ssl.SSLContext | None:
    if settings.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        key = Path(settings.key).expanduser() if settings.key else None
        context.load_cert_chain(Path(settings.certificate).expanduser(), key)
    except (OSError, ssl.SSLError) as error:
        raise EngineError(
            f"cannot read the certificate {settings.certificate}: {error.strerror or error}"
        ) from error
    return context
