"""A small package collection and a binary cache of our own, made by a real Nix, served over HTTP.

Nothing here needs the network: the packages are built by /bin/sh, and the cache is filled in a
container without one. Each build adds a line to /nix/built, so that a test can count them.
"""

from __future__ import annotations

import gzip
import io
import tarfile
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# `leaf` calls no other, `tree` calls it, `forest` has two outputs, `gcc` has the name of a program
# that images may have, `python3` brings a python; `heavy` is 40 MB; `broken` does not build.
COLLECTION = r"""
{ ... }:
let
  make = name: text: derivation {
    inherit name;
    system = builtins.currentSystem;
    builder = "/bin/sh";
    args = [ "-ec" ("PATH=/bin:/usr/bin\n" + text + "\necho ${name} >> /nix/built") ];
  };
  program = name: text: make "${name}-1.0" ''
    mkdir -p $out/bin
    printf '#!/bin/sh\n%s\n' '${text}' > $out/bin/${name}
    chmod +x $out/bin/${name}
  '';
  leaf = program "leaf" "echo leaf";
in {
  inherit leaf;
  tree = program "tree" "echo a tree of $(${leaf}/bin/leaf)";
  bush = program "bush" "echo a bush of $(${leaf}/bin/leaf)";
  slow = make "slow-1.0" "sleep 1; mkdir -p $out/bin; echo 'echo slow' > $out/bin/slow";
  heavy = make "heavy-1.0" "mkdir $out; head -c 40000000 /dev/zero > $out/ballast";
  forest = (derivation {
    name = "forest-1.0";
    system = builtins.currentSystem;
    outputs = [ "out" "bin" "man" ];
    builder = "/bin/sh";
    args = [ "-ec" ''
      PATH=/bin:/usr/bin
      mkdir -p $out/share $bin/bin $man/share
      printf '#!/bin/sh\necho trees\n' > $bin/bin/forest
      chmod +x $bin/bin/forest
      echo forest-1.0 >> /nix/built
    '' ];
  }) // { meta.outputsToInstall = [ "bin" "man" ]; };
  gcc = program "gcc" "echo gcc of our own";
  python3 = program "python3" "echo a python of Nix";
  ffmpeg = program "ffmpeg" "echo film";
  broken = make "broken-1.0" ''
    n=0; while [ $n -lt 60 ]; do echo line $n; n=$((n+1)); done
    echo disk I/O error: No space left on device
    echo there is no way on
    exit 3
  '';
  removed = throw "removed was taken out of the collection";
  # As many names as nixpkgs has.
  crowd = builtins.listToAttrs (
    builtins.genList (n: { name = "one${toString n}"; value = leaf; }) 25000);
  sets.oak = program "oak" "echo oak";
}
"""

_FILL = """
set -e
export NIX_CONFIG='substituters =
sandbox = false
build-users-group ='
mkdir /p && cp /collection.nix /p/default.nix
nix-store --generate-binary-cache-key stoke-test /secret /public
nix-build --no-out-link /p -A leaf -A tree -A bush -A forest.bin -A gcc -A ffmpeg > /built
nix copy --to 'file:///cache?secret-key=/secret&compression=none' $(cat /built)
nix-hash --type sha256 --base32 /p > /hash
"""


@dataclass(frozen=True)
class NixFiles:
    """What one real Nix made: the binary cache's files by path, its key, the collection's hash."""

    cache: dict[str, bytes]
    key: str
    sha256: str


def make_files(engine: Any, image: str) -> NixFiles:
    """Builds the collection once, in a container without a network, and takes the cache out."""
    body = engine.create_container(image, ["sh", "-c", _FILL], user="0:0", network_disabled=True)
    container = body["Id"]
    try:
        engine.put_archive(container, "/", _tar({"collection.nix": COLLECTION.encode()}))
        engine.start(container)
        code = engine.wait(container)["StatusCode"]
        assert code == 0, engine.logs(container).decode()
        read = {
            name: _untar(engine.get_archive(container, "/" + name)[0])
            for name in ("cache", "public", "hash")
        }
    finally:
        engine.remove_container(container, force=True, v=True)
    return NixFiles(
        {name.removeprefix("cache/"): data for name, data in read["cache"].items()},
        read["public"]["public"].decode().strip(),
        read["hash"]["hash"].decode().strip(),
    )


class NixCache:
    """Serves `/nixpkgs.tar.gz` and, below `/cache`, the binary cache, on every address here."""

    def __init__(self, address: str, files: NixFiles) -> None:
        self.requests: list[str] = []
        self.delay = 0.0
        """Seconds before each answer of the binary cache."""
        self._served = {f"/cache/{name}": data for name, data in files.cache.items()}
        collection = _tar({"nixpkgs-0/default.nix": COLLECTION.encode()})
        self._served["/nixpkgs.tar.gz"] = gzip.compress(collection)
        self._files = files
        cache = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                cache._answer(self)

            def do_HEAD(self) -> None:
                cache._answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://{address}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def settings(self, *, substitute: bool = False, trust: bool = True) -> dict[str, Any]:
        """A request's `nix`: the collection and, with `substitute`, the binary cache."""
        return {
            "url": f"{self.url}/nixpkgs.tar.gz",
            "sha256": self._files.sha256,
            "substituters": [f"{self.url}/cache"] if substitute else [],
            "trusted_keys": [self._files.key] if trust else [],
        }

    def stop(self) -> None:
        """From here on nothing can be reached."""
        self._server.shutdown()
        self._server.server_close()

    def fetched(self) -> list[str]:
        """The archives of store paths that were downloaded."""
        return [path for path in self.requests if path.startswith("/cache/nar/")]

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.command == "GET":
            self.requests.append(request.path)
        if request.path.startswith("/cache/"):
            time.sleep(self.delay)
        body = self._served.get(request.path)
        if body is None:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", "application/octet-stream")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)


def _tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _untar(pieces: Any) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
        return {
            entry.name: file.read()
            for entry in tar.getmembers()
            if entry.isfile() and (file := tar.extractfile(entry)) is not None
        }
