"""A proxy before the API server of a cluster that cuts connections."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import yaml  # type: ignore[import-untyped]


class CuttingProxy:
    """Between a client and the API server: ends every connection after a number of bytes of answers."""

    def __init__(self, server: str, sizes: Callable[[], int]) -> None:
        self._url = server
        parts = urlsplit(server)
        self._server = (parts.hostname, parts.port or 443)
        self._sizes = sizes
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.cuts = 0
        self.passed = 0
        """Bytes of answers that reached the client."""
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def kubeconfig(self, original: str) -> str:
        """Return the content of a kubeconfig with this proxy in place of its server."""
        config = yaml.safe_load(Path(original).read_text())
        (place,) = [one for one in config["clusters"] if one["cluster"]["server"] == self._url]
        place["cluster"]["tls-server-name"] = urlsplit(self._url).hostname
        place["cluster"]["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        return json.dumps(config)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            for ends in ((client, server, None), (server, client, self._sizes())):
                threading.Thread(target=self._pass, args=ends, daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, left: int | None) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data if left is None else data[:left])
                if left is not None:
                    with self._lock:
                        self.passed += min(left, len(data))
                    left -= len(data)
                    if left <= 0:
                        self.cuts += 1
                        break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
