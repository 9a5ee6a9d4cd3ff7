"""One job as one script, printed by `stoke render script`.

    python3 SCRIPT [--cache DIR]

Needs Python 3.9 or later and nothing else. Packages are kept in --cache (by default in the user's cache
folder) for the next run. Output and exit code are the job's. The script holds no secrets; it reads them
when it runs, from where the request says.
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

from stoke.remote.command import runner_arguments
from stoke.remote.events import Event, EventScanner
from stoke.remote.hints import hint_text
from stoke.remote.protocol import EventKind


def main(packed: str) -> int:
    """Run what `stoke.jobs.script` packed: the runner, a payload, and references to secrets."""
    parser = argparse.ArgumentParser(description="A job, packed by stoke.")
    parser.add_argument("--cache", default=default_cache(), help="where packages are kept")
    cache = Path(parser.parse_args().cache).absolute()
    parcel = json.loads(packed)
    payload = json.loads(gzip.decompress(base64.b64decode(parcel["payload"])))
    fill_in(payload, parcel["references"])
    scanner = EventScanner(payload["nonce"])
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        runner, delivered = Path(folder, "runner.py"), Path(folder, "payload")
        runner.write_bytes(base64.b64decode(parcel["runner"]))
        delivered.touch(mode=0o600)
        delivered.write_bytes(gzip.compress(json.dumps(payload).encode()))
        pack = None
        if parcel["pack"] is not None:
            pack = folder + "/pack"
            Path(pack).write_bytes(gzip.decompress(base64.b64decode(parcel["pack"])))
        if payload["use_cache"]:
            cache.mkdir(parents=True, exist_ok=True)
        arguments = runner_arguments(
            str(delivered),
            work=folder + "/work",
            pack=pack,
            cache=str(cache) if payload["use_cache"] else None,
        )
        return run([sys.executable, "-I", "-S", str(runner), *arguments], scanner, cache)


def default_cache() -> str:
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stoke-script")


def run(argv: list[str], scanner: EventScanner, cache: Path) -> int:
    """Run the runner, print its events as text, and return its exit code."""
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    signal.signal(signal.SIGTERM, lambda number, _: process.send_signal(number))
    # The terminal sends ctrl+c to the runner as well; wait for its end.
    signal.signal(signal.SIGINT, lambda *_: None)
    has_begun = False
    while data := os.read(process.stderr.fileno(), 1 << 16):
        for piece in scanner.feed(data):
            if isinstance(piece, bytes):
                write(piece)
                continue
            # Once the user's code runs, it can print events of its own.
            if not has_begun:
                write(event_text(piece, cache))
            has_begun = has_begun or (piece["event"] == EventKind.BEGIN and piece["phase"] == "run")
    write(scanner.flush())
    code = process.wait()
    return code if code >= 0 else 128 - code


def event_text(event: Event, cache: Path) -> bytes:
    """Return the text that the user sees for an event from before the job's code began."""
    if event["event"] == EventKind.ERROR:
        hint = event.get("hint")
        # `stoke cache` does not know the cache of a script.
        if hint == ["prune-python"]:
            hint = ["free-space", str(cache)]
        text = hint_text(hint)
        shown = "\nhint: " + text if text else ""
        return "error: {}: {}{}\n".format(event["phase"], event["text"], shown).encode()
    if event["event"] == EventKind.NOTE:
        return "stoke: {}\n".format(event["text"]).encode()
    return b""


def write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]


def fill_in(payload: dict[str, Any], references: dict[str, Any]) -> None:
    """Put secrets into the payload."""
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
        # A variable may hold a password or "user:password"; the user may be empty.
        index = payload["index"]
        index["secrets"] += [part for part in value.split(":", 1) if part]
        named = "${" + name + "}"
        index["url"] = index["url"] and index["url"].replace(named, value)
        index["extra"] = [url.replace(named, value) for url in index["extra"]]


def read(reference: str) -> str:
    """Return the secret of a reference; end the program if it is missing."""
    kind, _, where = reference.partition(":")
    try:
        if kind == "env":
            return os.environ[where]
        return Path(where).expanduser().read_text().removesuffix("\n")
    except (KeyError, OSError) as error:
        sys.exit(f"error: this job needs a secret from {reference}, which is not there: {error}")
