"""What identifies an environment before it is built: the request hash.

The lock's own key and the environment's key are the runner's, because they need the interpreter's
fingerprint; they begin with what is hashed here.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from stoke.spec import JobSpec, NixSettings


def environment_request(spec: JobSpec) -> dict[str, Any]:
    """All of a request that decides its environment, and nothing else (the code does not).

    The order in which packages are named does not matter; index settings and the image do.
    """
    parsed = spec.parsed_requirements()
    wanted: dict[str, Any] = {
        "dependencies": sorted(spec.dependencies),
        "requirements": sorted([entry.text, sorted(entry.hashes)] for entry in parsed.requirements),
        "options": sorted(parsed.options),
        "system": sorted(spec.system),
        "python": spec.python,
        "image": spec.image,
        "index": spec.index.model_dump(mode="json"),
        "indexes": [parsed.index, *parsed.extra_indexes],
    }
    if spec.system:
        wanted["nix"] = (spec.nix or NixSettings()).model_dump(mode="json")
    return wanted


def request_hash(spec: JobSpec) -> str:
    """64 hex characters: equal for requests that want the same environment."""
    text = json.dumps(environment_request(spec), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
