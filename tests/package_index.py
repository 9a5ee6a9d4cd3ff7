"""A real package index of our own: tiny wheels over HTTP, with a password if asked for.

It listens on every address of this machine, so that containers reach it too.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import html
import io
import ssl
import tarfile
import threading
import zipfile
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def wheel(
    name: str, version: str, requires: Iterable[str] = (), size: int = 0, script: str = ""
) -> bytes:
    """A wheel with one module that knows its version, and `size` bytes of ballast. The console script
    `script` prints the package, the version and its arguments."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"version = {version!r}\n".encode(),
        f"{info}/METADATA": (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "Provides-Extra: more\n"
            + "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
        ).encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n",
    }
    if script:
        files[f"{info}/entry_points.txt"] = f"[console_scripts]\n{script} = {name}:main\n".encode()
        files[f"{name}/__init__.py"] += (
            f"def main():\n    import sys\n    print({name!r}, version, *sys.argv[1:])\n"
        ).encode()
        files[f"{name}/__main__.py"] = f"from {name} import main\n\nmain()\n".encode()
    if size:
        # Bytes that do not compress, so that a wheel is as big as it says.
        files[f"{name}/ballast.bin"] = hashlib.shake_256(name.encode()).digest(size)
    rows = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}")
    files[f"{info}/RECORD"] = ("\n".join([*rows, f"{info}/RECORD,,"]) + "\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data)
    return out.getvalue()


def offline_backend(name: str, version: str) -> str:
    """A build backend that needs no package: it builds a module whose `version` is "source"."""
    return f"""import base64, hashlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    flag = (config_settings or {{}}).get("flag", "source")
    info = "{name}-{version}.dist-info"
    files = {{
        "{name}/__init__.py": f"version = {{flag!r}}\\n",
        info + "/METADATA": "Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n",
        info + "/WHEEL": "Wheel-Version: 1.0\\nGenerator: tests\\nRoot-Is-Purelib: true\\n"
        "Tag: py3-none-any\\n",
    }}
    files[info + "/RECORD"] = "".join(path + ",,\\n" for path in files) + info + "/RECORD,,\\n"
    wheel = "{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(folder + "/" + wheel, "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return wheel
"""


def sdist(name: str, version: str, backend: str) -> bytes:
    """A source distribution that is built by its own module, whose source is `backend`."""
    files = {
        "PKG-INFO": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
        'backend-path = ["."]\n',
        "backend.py": backend,
    }
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for path, text in files.items():
            member = tarfile.TarInfo(f"{name}-{version}/{path}")
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


class PackageIndex:
    """Serves the wheels added to it. `requests` holds the path of every request answered."""

    def __init__(
        self, address: str, password: str | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        self._files: dict[str, bytes] = {}
        self._yanked: dict[str, str] = {}
        self.requests: list[str] = []
        self.held: dict[str, threading.Event] = {}
        """Files that are sent once their event is set."""
        self._password = password
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index._answer(self)

            def do_HEAD(self) -> None:
                index._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            # Many clients at once; the default turns the sixth away.
            request_queue_size = 128

            def handle_error(self, request: object, client_address: object) -> None:
                """A client that does not trust this server hangs up, and that is its answer."""

        self._server = Server(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.host = f"{address}:{self._server.server_address[1]}"
        self._scheme = "https" if tls else "http"
        self.url = f"{self._scheme}://{self.host}/simple"
        if tls:
            # Each connection shakes hands on its own thread, when it is first read from.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def add(
        self,
        name: str,
        version: str,
        requires: Iterable[str] = (),
        size: int = 0,
        script: str = "",
    ) -> str:
        """Adds a wheel and returns its sha256."""
        data = wheel(name, version, requires, size, script)
        return self.add_file(f"{name}-{version}-py3-none-any.whl", data)

    def add_file(self, name: str, data: bytes) -> str:
        """Adds a wheel that was made elsewhere and returns its sha256."""
        self._files[name] = data
        return hashlib.sha256(data).hexdigest()

    def add_sdist(self, name: str, version: str, backend: str | None = None) -> None:
        """Adds a source distribution, with the offline build backend unless another is given."""
        backend = offline_backend(name, version) if backend is None else backend
        self._files[f"{name}-{version}.tar.gz"] = sdist(name, version, backend)

    def yank(self, name: str, version: str, reason: str) -> None:
        self._yanked[f"{name}-{version}-py3-none-any.whl"] = reason

    @property
    def links_url(self) -> str:
        """A page with links to all files, which is no index."""
        return f"http://{self.host}/links"

    def file_url(self, name: str, version: str) -> str:
        return f"{self._scheme}://{self.host}/files/{name}-{version}-py3-none-any.whl"

    def stop(self) -> None:
        """From here on the index cannot be reached."""
        self._server.shutdown()
        self._server.server_close()

    def _yank_mark(self, file: str) -> str:
        reason = self._yanked.get(file)
        return "" if reason is None else f' data-yanked="{html.escape(reason)}"'

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(request.path)
        if self._password is not None:
            token = base64.b64encode(self._password.encode()).decode()
            if request.headers.get("Authorization") != f"Basic {token}":
                request.send_response(401)
                request.send_header("WWW-Authenticate", "Basic realm=index")
                request.end_headers()
                return
        parts = request.path.strip("/").split("/")
        body: bytes | None = None
        if parts == ["simple"]:
            names = {file.split("-")[0].replace("_", "-") for file in self._files}
            links = [f'<a href="/simple/{name}/">{name}</a><br>' for name in sorted(names)]
            body = ("<!DOCTYPE html><html><body>" + "\n".join(links)).encode()
        elif parts == ["links"] or (parts[0] == "simple" and len(parts) == 2):
            links = [
                f'<a href="/files/{file}#sha256={hashlib.sha256(data).hexdigest()}"'
                f"{self._yank_mark(file)}>{file}</a><br>"
                for file, data in self._files.items()
                if parts[0] == "links" or file.split("-")[0].replace("_", "-") == parts[1]
            ]
            body = ("<!DOCTYPE html><html><body>" + "\n".join(links)).encode() if links else None
        elif parts[0] == "files" and len(parts) == 2:
            body = self._files.get(parts[1])
        if body is None:
            request.send_error(404)
            return
        request.send_response(200)
        kind = "application/octet-stream" if parts[0] == "files" else "text/html"
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            if parts[-1] in self.held:
                self.held[parts[-1]].wait(60)
            with contextlib.suppress(ConnectionError):  # the client has ended meanwhile
                request.wfile.write(body)
