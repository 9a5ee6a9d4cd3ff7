"""What identifies an environment before it is built: hashes of what the request asks for.

The lock's own key and the environment's key are the runner's, because they need the interpreter's
fingerprint; they begin with what is hashed here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stoke.request.requirements import names
from stoke.request.spec import JobSpec, NixSettings
from stoke.request.uv_settings import RESULT


def python_request(spec: JobSpec) -> dict[str, Any]:
    """All of a request that decides its Python environment, and nothing else (the code does not).

    The order in which packages are named does not matter; index settings, uv's settings and the
    image do.
    """
    parsed = spec.parsed_requirements()
    return {
        "dependencies": sorted(spec.dependencies),
        "requirements": sorted([entry.text, sorted(entry.hashes)] for entry in parsed.requirements),
        "constraints": sorted(
            [entry.text, sorted(entry.hashes)] for entry in spec.parsed_constraints()
        ),
        "locked": spec.locked,
        "options": sorted([*parsed.options, *["--require-hashes"] * parsed.require_hashes]),
        "python": spec.python,
        "image": spec.image,
        "index": spec.index.model_dump(mode="json"),
        "indexes": [parsed.index, *parsed.extra_indexes],
        "uv": {name: setting.value for name, setting in (spec.uv or {}).items() if name in RESULT},
    }


def request_hash(spec: JobSpec) -> str:
    """64 hex characters: equal for requests that want the same, packages of both kinds."""
    wanted = {**python_request(spec), "system": sorted(spec.system)}
    if spec.system:
        wanted["nix"] = (spec.nix or NixSettings()).model_dump(mode="json")
    return _digest(wanted)


def python_hash(spec: JobSpec) -> str | None:
    """64 hex characters: equal for requests that want the same Python environment; None for none."""
    return _digest(python_request(spec)) if spec.has_packages else None


def system_hash(spec: JobSpec) -> str | None:
    """As `python_hash`, for system packages: names and the revision that they come from decide."""
    if not spec.system:
        return None
    return _digest([sorted(set(spec.system)), (spec.nix or NixSettings()).sha256])


def named_packages(spec: JobSpec) -> dict[str, list[str]]:
    """The packages that a request names, canonical, of each kind that it asks for."""
    parsed = spec.parsed_requirements()
    python = names([*spec.dependencies, *(entry.text for entry in parsed.requirements)])
    named = {"python": python, "system": list(dict.fromkeys(spec.system))}
    return {kind: some for kind, some in named.items() if some}


def _digest(wanted: object) -> str:
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
