"""Run a program in a pod's container and exchange bytes with it, over one WebSocket.

The protocol is `v4.channel.k8s.io`: each message begins with the number of its channel. Versions
before Kubernetes 1.30 cannot end stdin, so a program has to know where its input ends.
Source: https://github.com/kubernetes/kubernetes/tree/master/staging/src/k8s.io/kubelet/pkg/cri/streaming
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from backends.argo.cluster import CONNECT_SECONDS, ApiError, Cluster, pods_path, refusal
from backends.argo.status import MAIN
from stoke.errors import EngineError

PROTOCOL = "v4.channel.k8s.io"
STDIN, STDOUT, STDERR, STATUS = range(4)
PIECE = 64 * 1024
SILENCE_SECONDS = 120.0


class ExecStream:
    """A program that runs in the main container of a pod. `what` completes "cannot ..."."""

    def __init__(self, cluster: Cluster, pod: str, argv: Sequence[str], what: str) -> None:
        self._what = what
        self._errors = b""
        path = f"{pods_path(cluster.namespace, pod)}/exec"
        query = [("container", MAIN), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in argv]
        self._socket = self._connected(cluster, path, urlencode(query))

    def _connected(self, cluster: Cluster, path: str, query: str) -> Any:
        import websocket

        access = cluster.access()
        pool = access.pool
        server = access.server.replace("http", "ws", 1)
        proxy = getattr(pool, "proxy", None)
        options: dict[str, Any] = {}
        if proxy is not None:
            login = tuple((proxy.auth or ":").split(":", 1)) if proxy.auth else None
            options = {
                "http_proxy_host": proxy.host,
                "http_proxy_port": proxy.port,
                "http_proxy_auth": login,
                "proxy_type": "http",
            }
        tls: dict[str, Any] = {"context": pool.connection_pool_kw.get("ssl_context")}
        if name := pool.connection_pool_kw.get("server_hostname"):
            tls["server_hostname"] = name
        try:
            return websocket.create_connection(
                f"{server}{path}?{query}",
                timeout=CONNECT_SECONDS * 6,
                header=[f"{name}: {value}" for name, value in access.headers.items()],
                subprotocols=[PROTOCOL],
                sslopt=tls,
                enable_multithread=True,
                **options,
            )
        except websocket.WebSocketBadStatusException as error:
            raise refusal(
                self._what,
                cluster.context_name,
                cluster.kubectl,
                error.status_code,
                error.resp_body or b"",
                None,
            ) from error
        except (websocket.WebSocketException, OSError) as error:
            raise ApiError(f"cannot {self._what}: {error}", reason="Unreachable") from error

    def send(self, data: bytes) -> None:
        """Write to the program's stdin; wait until the connection takes it."""
        self._checked(self._socket.send_binary, b"\0" + data)

    def output(self) -> Iterator[bytes]:
        """Yield the program's stdout to its end. `EngineError` if it fails."""
        self._socket.settimeout(SILENCE_SECONDS)
        while True:
            message = self._checked(self._socket.recv)
            if not message:
                raise EngineError(f"cannot {self._what}: the connection was cut")
            channel, data = message[0], message[1:]
            if channel == STDOUT and data:
                yield data
            elif channel == STDERR:
                self._errors = (self._errors + data)[-2000:]
            elif channel == STATUS:
                self._check_status(data)
                return

    def close(self) -> None:
        self._socket.shutdown()

    def _check_status(self, data: bytes) -> None:
        try:
            status = json.loads(data)
            has_failed, message = status["status"] != "Success", str(status.get("message", ""))
        except (ValueError, LookupError, TypeError, AttributeError):
            has_failed, message = True, "it ended without a status"
        if has_failed:
            lines = self._errors.decode(errors="replace").strip().splitlines()
            raise EngineError(f"cannot {self._what}: {lines[-1] if lines else message}")

    def _checked(self, call: Any, *arguments: Any) -> Any:
        import websocket

        try:
            return call(*arguments)
        except (websocket.WebSocketException, OSError) as error:
            raise EngineError(f"cannot {self._what}: the connection was cut: {error}") from error
