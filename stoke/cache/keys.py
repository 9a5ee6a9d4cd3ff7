"""The keys that identify an environment before it is built: hashes of what a request asks for.

The runner computes the keys of lockfile and environment, because they depend on the interpreter's
fingerprint; both begin with a hash from here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from stoke.request.requirement import names
from stoke.request.spec import JobSpec, NixSettings
from stoke.request.uv_settings import RESULT


@dataclass(frozen=True)
class RequestKeys:
    """The hashes of one request, 64 hex characters each, and the packages that it names."""

    request: str
    """Equal for requests that ask for the same packages of both kinds."""
    python: str | None
    """Equal for requests that ask for the same Python environment; None without Python packages."""
    system: str | None
    """Equal for requests that ask for the same system packages; None without any."""
    packages: dict[str, list[str]]
    """The named packages by kind ("python", "system"), canonical; only the kinds that are asked for."""


def request_keys(spec: JobSpec) -> RequestKeys:
    return RequestKeys(
        request_hash(spec), python_hash(spec), system_hash(spec), named_packages(spec)
    )


def python_request(spec: JobSpec) -> dict[str, Any]:
    """Return the parts of a request that decide its Python environment; the code is none of them.

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
    """Return the hash of everything that a request asks for, packages of both kinds."""
    wanted = {**python_request(spec), "system": sorted(spec.system)}
    if spec.system:
        wanted["nix"] = (spec.nix or NixSettings()).model_dump(mode="json")
    return _digest(wanted)


def python_hash(spec: JobSpec) -> str | None:
    """Return the hash of the Python environment that a request asks for; None if it asks for none."""
    return _digest(python_request(spec)) if spec.has_packages else None


def system_hash(spec: JobSpec) -> str | None:
    """Return the hash of the system packages: their names and the revision of their source."""
    if not spec.system:
        return None
    return _digest([sorted(set(spec.system)), (spec.nix or NixSettings()).sha256])


def named_packages(spec: JobSpec) -> dict[str, list[str]]:
    """Return the canonical names of the packages that a request names, by kind."""
    parsed = spec.parsed_requirements()
    python = names([*spec.dependencies, *(entry.text for entry in parsed.requirements)])
    named = {"python": python, "system": list(dict.fromkeys(spec.system))}
    return {kind: packages for kind, packages in named.items() if packages}


def _digest(wanted: object) -> str:
    text = json.dumps(wanted, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
