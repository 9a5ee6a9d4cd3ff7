"""One job as one script: what `stoke render script` prints begins with this file.

    python3 SCRIPT [--cache DIR]

Needs Python 3.9 or later and nothing else. Packages are kept in --cache (else in the user's cache
folder) for the next time. Output and exit code are the job's; secrets are read when it runs, from
where they were said to stand.
"""

from __future__ import annotations

import argparse
import base64
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote


def main(parcel: dict[str, Any]) -> int:
    """Run what `stoke.jobs.script` packed: runner, event reader, texts of hints, payload, secrets."""
    parser = argparse.ArgumentParser(description="A job, packed by stoke.")
    parser.add_argument("--cache", default=default_cache(), help="where packages are kept")
    cache = Path(parser.parse_args().cache).absolute()
    payload = json.loads(gzip.decompress(base64.b64decode(parcel["payload"])))
    fill_in(payload, parcel["references"])
    scanner = unpacked(parcel, "events")["EventScanner"](payload["nonce"])
    hint_text = unpacked(parcel, "hints")["hint_text"]
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        runner, delivered = Path(folder, "runner.py"), Path(folder, "payload")
        runner.write_bytes(base64.b64decode(parcel["runner"]))
        delivered.touch(mode=0o600)
        delivered.write_bytes(gzip.compress(json.dumps(payload).encode()))
        argv = [sys.executable, "-I", "-S", str(runner), str(delivered), "--work", folder + "/work"]
        if payload["use_cache"]:
            cache.mkdir(parents=True, exist_ok=True)
            argv += ["--cache", str(cache)]

        def told(event: dict[str, Any]) -> bytes:
            return event_text(event, hint_text, cache)

        return run(argv, scanner, told)


def unpacked(parcel: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the globals of one of the modules in the parcel."""
    module: dict[str, Any] = {"__name__": name}
    exec(base64.b64decode(parcel[name]), module)  # noqa: S102
    return module


def default_cache() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stoke-script")


def run(argv: list[str], scanner: Any, told: Any) -> int:
    """The runner's output with its events taken out and told; returns its exit code."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    # ctrl+c reaches the runner by itself; this only stays to see it end.
    signal.signal(signal.SIGINT, lambda *_: None)
    runs = False
    while data := os.read(process.stderr.fileno(), 1 << 16):
        for piece in scanner.feed(data):
            if isinstance(piece, bytes):
                write(piece)
                continue
            # Once the code runs it can print events of its own.
            write(b"" if runs else told(piece))
            runs = runs or (piece["event"] == "begin" and piece["phase"] == "run")
    write(scanner.flush())
    code = process.wait()
    return code if code >= 0 else 128 - code


def event_text(event: dict[str, Any], hint_text: Any, cache: Path) -> bytes:
    """Return what the user is told of an event, before the job's code has begun."""
    if event["event"] == "error":
        hint = event.get("hint")
        # The cache of a script is a folder that `stoke cache` does not know.
        if hint == ["prune-python"]:
            hint = ["free-space", str(cache)]
        text = hint_text(hint)
        shown = "\nhint: " + text if text else ""
        return "error: {}: {}{}\n".format(event["phase"], event["text"], shown).encode()
    if event["event"] == "note":
        return "stoke: {}\n".format(event["text"]).encode()
    return b""


def write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


def fill_in(payload: dict[str, Any], references: dict[str, Any]) -> None:
    for name, reference in references["env"].items():
        payload["env"][name] = read(reference)
    if references["credentials"]:
        user, _, password = read(references["credentials"]).partition(":")
        index = payload["index"]
        index["secrets"] = [password]
        login = "://{}:{}@".format(quote(user, safe=""), quote(password, safe=""))
        if index["url"]:
            index["url"] = index["url"].replace("://", login, 1)
        else:
            index["extra"] = [url.replace("://", login, 1) for url in index["extra"]]
    for name in references["logins"]:
        value = read(f"env:{name}")
        payload["settings"]["environment"][name] = value
        # A user may be empty, or stand before its password in one variable.
        index = payload["index"]
        index["secrets"] += [part for part in value.split(":", 1) if part]
        named = "${" + name + "}"
        index["url"] = index["url"] and index["url"].replace(named, value)
        index["extra"] = [url.replace(named, value) for url in index["extra"]]


def read(reference: str) -> str:
    kind, _, where = reference.partition(":")
    try:
        if kind == "env":
            return os.environ[where]
        return Path(where).expanduser().read_text().removesuffix("\n")
    except (KeyError, OSError) as error:
        sys.exit(f"error: this job needs a secret from {reference}, which is not there: {error}")
