"""A cluster's API as plain JSON: what starting a cluster, the stand-in and their tests need of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import urllib3
import websocket

Object = dict[str, Any]


class ApiError(Exception):
    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Api:
    """Reads the kubeconfigs that pki.py writes. Safe to use from several threads."""

    def __init__(self, kubeconfig: Path) -> None:
        config = json.loads(kubeconfig.read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._headers = {"Authorization": f"Bearer {config['users'][0]['user']['token']}"}
        self._authority = cluster["certificate-authority"]
        self._pool = urllib3.PoolManager(ca_certs=self._authority, maxsize=16)

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        return self._call("GET", path, query=query)

    def create(self, path: str, body: Object) -> Object:
        return self._call("POST", path, body)

    def merge(self, path: str, body: Object) -> Object:
        return self._call("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str, body: Object | None = None) -> Object:
        return self._call("DELETE", path, body)

    def text(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """What is not JSON: logs, /readyz."""
        return self._answer("GET", path, query, None, "").data.decode(errors="replace")

    def watch(
        self, path: str, version: str, query: Mapping[str, str] | None = None
    ) -> Iterator[Object]:
        """The events after `version`, until the server ends the answer after some seconds."""
        asked = {**(query or {}), "watch": "1", "resourceVersion": version, "timeoutSeconds": "20"}
        asked["allowWatchBookmarks"] = "true"
        response = self._answer("GET", path, asked, None, "", preload=False)
        rest = b""
        try:
            for chunk in response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        finally:
            response.close()

    def execute(self, namespace: str, pod: str, container: str, command: list[str]) -> str:
        """Runs a command in a container; what it printed, on both streams."""
        words = [("container", container), ("stdout", "true"), ("stderr", "true")]
        words += [("command", word) for word in command]
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/exec?{urlencode(words)}"
        connection = websocket.create_connection(
            self._server.replace("https", "wss") + path,
            timeout=20,
            header=self._headers,
            subprotocols=["v4.channel.k8s.io"],
            sslopt={"ca_certs": self._authority},
        )
        said = b""
        try:
            while message := connection.recv():
                content = message if isinstance(message, bytes) else message.encode()
                if content[0] in (1, 2):  # the first byte says which stream
                    said += content[1:]
        except websocket.WebSocketConnectionClosedException:
            pass
        finally:
            connection.close()
        return said.decode(errors="replace")

    def _call(
        self,
        method: str,
        path: str,
        body: Object | None = None,
        kind: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Object:
        answer: Object = json.loads(self._answer(method, path, query, body, kind).data)
        return answer

    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        body: Object | None,
        kind: str,
        preload: bool = True,
    ) -> urllib3.BaseHTTPResponse:
        headers = dict(self._headers)
        if body is not None:
            headers["Content-Type"] = kind
        response = self._pool.request(
            method,
            self._server + path + (f"?{urlencode(query)}" if query else ""),
            headers=headers,
            body=None if body is None else json.dumps(body).encode(),
            preload_content=preload,
            timeout=urllib3.Timeout(connect=5, read=30),
            retries=False,
        )
        if response.status >= 300:
            try:
                status = json.loads(response.data)
            except ValueError:
                status = {}
            raise ApiError(response.status, status.get("reason", ""), status.get("message", ""))
        return response
