"""A company's network: its own certificate authority, and a proxy in front of everything."""

from __future__ import annotations

import base64
import socket
import ssl
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

AUTHORITY = "Example Works Root"


class Authority:
    """A certificate authority, and a server's certificate from it for some addresses."""

    def __init__(self, folder: Path, *addresses: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / "authority.crt"
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
        _openssl(
            folder, "req", "-x509", *new_key, "-keyout", "authority.key", "-out", self.file.name,
            "-subj", f"/O=Example Works/CN={AUTHORITY}", "-days", "30",
        )  # fmt: skip
        _openssl(
            folder, "req", *new_key, "-keyout", "server.key", "-out", "server.csr",
            "-subj", "/CN=index",
        )  # fmt: skip
        names = ",".join(f"IP:{address}" for address in addresses)
        (folder / "server.ext").write_text(f"subjectAltName={names},DNS:localhost\n")
        _openssl(
            folder, "x509", "-req", "-in", "server.csr", "-CA", self.file.name, "-CAkey",
            "authority.key", "-CAcreateserial", "-out", "server.crt", "-days", "30",
            "-extfile", "server.ext",
        )  # fmt: skip
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(folder / "server.crt", folder / "server.key")


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


class Proxy:
    """An HTTP proxy: CONNECT, and GET with a whole address. `asked` holds each target.

    With `login` ("user:password") it answers 407 to all other clients.
    """

    def __init__(self, address: str = "127.0.0.1", login: str | None = None) -> None:
        self._listener = socket.create_server(("0.0.0.0", 0))
        self.host = f"{address}:{self._listener.getsockname()[1]}"
        self.url = f"http://{self.host}"
        self.url_with_login = f"http://{login}@{self.host}" if login else self.url
        self.asked: list[str] = []
        self._login = login
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                data = client.recv(1)
                if not data:
                    return
                head += data
            method, target, _ = head.split(b"\r\n")[0].decode().split()
            self.asked.append(target)
            if self._login is not None:
                token = base64.b64encode(self._login.encode())
                if b"proxy-authorization: basic " + token not in _folded(head):
                    client.sendall(
                        b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n"
                        b'Proxy-Authenticate: Basic realm="proxy"\r\nConnection: close\r\n\r\n'
                    )
                    return
            if method == "CONNECT":
                self._connect(client, target)
            else:
                self._forward(client, head, target)

    def _connect(self, client: socket.socket, target: str) -> None:
        host, _, port = target.rpartition(":")
        server = socket.create_connection((host, int(port)))
        client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=_pass, args=(server, client), daemon=True)
        back.start()
        _pass(client, server)
        back.join()

    def _forward(self, client: socket.socket, head: bytes, target: str) -> None:
        host, _, path = target.removeprefix("http://").partition("/")
        name, _, port = host.partition(":")
        with socket.create_connection((name, int(port or 80))) as server:
            lines = [
                line
                for line in head.split(b"\r\n")[1:-2]
                if not _folded(line).startswith((b"connection:", b"proxy-"))
            ]
            request = f"GET /{path} HTTP/1.0".encode()
            server.sendall(b"\r\n".join([request, *lines, b"Connection: close", b"", b""]))
            _pass(server, client)


def _folded(head: bytes) -> bytes:
    """Names of headers in lower case; a token's letters stay as they are."""
    lines = [line.partition(b":") for line in head.split(b"\r\n")]
    return b"\r\n".join(
        name.lower() + colon + value.replace(b"Basic", b"basic") for name, colon, value in lines
    )


def _pass(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
