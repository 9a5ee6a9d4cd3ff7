"""A request as one script that runs anywhere (`stoke render script`); no secret is inside."""

from __future__ import annotations

import base64
import json
import secrets
from importlib import resources
from typing import Any

from stoke.cache.keys import request_keys
from stoke.delivery.payload import runner_source
from stoke.delivery.uv_config import uv_config
from stoke.jobs.request import Request
from stoke.text.sanitize import looks_secret


def make_script(request: Request) -> str:
    """Return the source of the script.

    Variables that look like secrets are read where and when the script runs, as secrets are.
    """
    spec = request.spec
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
        "runner": _text(runner_source()),
        "events": _text((resources.files("stoke.remote") / "events.py").read_bytes()),
        "hints": _text((resources.files("stoke.remote") / "hints.py").read_bytes()),
        "payload": _text(payload),
    }
    head = (resources.files("stoke.remote") / "standalone.py").read_text()
    # JSON of a string, in ASCII, is also a Python literal.
    packed = json.dumps(json.dumps(parcel))
    return (
        f"#!/usr/bin/env python3\n{head}\n\n"
        f'if __name__ == "__main__":\n    sys.exit(main(json.loads({packed})))\n'
    )


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
