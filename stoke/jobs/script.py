"""A request as one script that runs anywhere (`stoke render script`); no secret is inside."""

from __future__ import annotations

import base64
import gzip
import json
import secrets
import tempfile
from pathlib import Path
from typing import Any

from stoke.cache.keys import request_keys
from stoke.delivery.payload import runner_source
from stoke.delivery.uv_config import uv_config
from stoke.errors import RequestError
from stoke.jobs.request import Request
from stoke.remote import standalone
from stoke.remote.bundle import bundle
from stoke.text.sanitize import looks_secret
from stoke.text.units import human_bytes

MAX_PACK = 8 * 1024**2
"""Bytes of a project's files, compressed, that a script holds."""


def make_script(request: Request) -> str:
    """Return the source of the script.

    Variables that look like secrets are read where and when the script runs, as secrets are. The files
    of the project are part of it. Raises `RequestError` if they are too large for that.
    """
    pack = None
    if request.spec.project is not None:
        request, pack = _with_files(request)
    spec = request.spec
    if spec.mounts:
        raise RequestError("mounts", "a script mounts nothing; give it the paths where it runs")
    if spec.workspace is not None:
        raise RequestError(
            "workspace", "a script has none; start it in the folder that it works in"
        )
    hidden = {name: f"env:{name}" for name in spec.env if looks_secret(name)}
    public = spec.model_copy(
        update={
            "env": {name: value for name, value in spec.env.items() if name not in hidden},
            "secrets": {},
            "index": spec.index.model_copy(update={"credentials": None}),
        }
    )
    # A secret that an engine stores becomes a variable of that name where the script runs.
    references = {
        name: f"env:{name}" if reference.startswith("secret:") else reference
        for name, reference in spec.secrets.items()
    }
    payload = request.payload(public, request_keys(public), secrets.token_hex(8), with_logins=False)
    parcel: dict[str, Any] = {
        "references": {
            "env": {**hidden, **references},
            "credentials": spec.index.credentials,
            "logins": uv_config(spec, with_secrets=False).wanted,
        },
        "runner": _text(runner_source(spec)),
        "payload": _text(payload),
        "pack": None if pack is None else _text(pack),
    }
    # JSON of a string, in ASCII, is also a Python literal.
    packed = json.dumps(json.dumps(parcel))
    head = f'#!/usr/bin/env python3\n"""{standalone.__doc__}"""\n\n'
    return bundle("standalone", call=f"main({packed})", head=head).decode()


def _with_files(request: Request) -> tuple[Request, bytes | None]:
    """Return the request with the digest of its project's snapshot, and all of its contents."""
    from stoke.jobs.snapshot_delivery import make_delivery, with_snapshot

    request, snapshot = with_snapshot(request, None)
    if snapshot is None:
        return request, None
    with tempfile.TemporaryDirectory(prefix="stoke-") as folder:
        pack = make_delivery(snapshot, frozenset(), Path(folder, "pack")).pack
        assert pack is not None
        compressed = gzip.compress(pack.read_bytes(), 6, mtime=0)
    if len(compressed) > MAX_PACK:
        raise RequestError(
            "project",
            f"its files take {human_bytes(len(compressed))} when compressed, and a script holds at "
            f"most {human_bytes(MAX_PACK)}",
            "leave some out with --exclude (stoke render files shows their sizes), or all: --no-folder",
        )
    return request, compressed


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
