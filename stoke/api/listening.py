"""Listen and serve, for `stoke api` and `stoke serve`: allowed addresses, TLS, the end of a server."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from stoke.api.hosts import WILDCARDS
from stoke.config.model import ListenConfig
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


def check_host(config: ListenConfig, command: str, *, without_tls: bool) -> None:
    """Raise `RequestError` for an address that other machines reach, unless the server has TLS, and for
    a key without a certificate."""
    if config.key and not config.certificate:
        raise RequestError(
            "key",
            "without a certificate the server would have no TLS",
            f"name the certificate, too: stoke {command} --certificate FILE --key FILE",
        )
    if is_loopback(config.host) or config.certificate or without_tls:
        return
    raise RequestError(
        "host",
        f"other machines reach {config.host}, and without TLS they could read tokens on the way",
        f"name a certificate: stoke {command} --certificate FILE --key FILE; or have a proxy do TLS: "
        f"stoke {command} --without-tls",
    )


class Server(uvicorn.Server):
    """Calls `on_stop` when the server is told to stop, so that what stays open can end at once."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._on_stop()

    def stop(self) -> None:
        """End the server, from any thread."""
        self.should_exit = True
        self._on_stop()


def listen(config: ListenConfig, command: str) -> socket.socket:
    """Return a socket that listens. Raises `EngineError` if the address cannot be had."""
    try:
        family, *_, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[
            0
        ]
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except BaseException:
            listening.close()
            raise
    except OSError as error:
        hint = f"choose another port: stoke {command} --port 0"
        if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            hint = f"choose an address of this machine: stoke {command} --host 127.0.0.1"
        raise EngineError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror}", hint
        ) from error
    return listening


def tls_context(config: ListenConfig) -> ssl.SSLContext | None:
    """Return the TLS of a server; None without. Raises `EngineError` for an unusable certificate."""
    if config.certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        key = Path(config.key).expanduser() if config.key else None
        # Without a password, OpenSSL asks for one at the terminal.
        context.load_cert_chain(Path(config.certificate).expanduser(), key, password="")
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(filter(None, (config.certificate, config.key)))
        reason = error.strerror or str(error)
        if isinstance(error, ssl.SSLError):
            reason = "this must be a certificate and its key, without a password, in PEM"
        raise EngineError(f"cannot read the certificate {files}: {reason}") from error
    return context


def run_server(
    app: ASGIApp,
    options: dict[str, Any],
    config: ListenConfig,
    listening: socket.socket,
    context: ssl.SSLContext | None,
    on_stop: Callable[[], None],
    started: Callable[[str, Server], None],
) -> None:
    """Serve on a socket until a signal or `Server.stop`. `started` runs in the event loop."""
    settings = uvicorn.Config(app, **options)
    if context is not None:
        settings.ssl_context_factory = lambda *_: context
    server = Server(settings, on_stop)
    port = listening.getsockname()[1]
    shown = f"[{config.host}]" if ":" in config.host else config.host
    if shown in WILDCARDS:  # No address that a client can use.
        shown = "localhost"
    address = f"{'https' if context else 'http'}://{shown}:{port}"

    async def run() -> None:
        started(address, server)
        await server.serve(sockets=[listening])

    asyncio.run(run())
