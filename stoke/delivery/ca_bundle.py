"""The CA bundle of a job (`index.ca_bundle`) apart from its payload.

Many jobs have the same one. All public authorities have some 220 KiB: several times the rest of a job.
"""

from __future__ import annotations

import gzip
import json


def take_out(payload: bytes) -> tuple[bytes, bytes]:
    """Return the payload of a job that has a CA bundle without it, and the bundle as PEM text.

    The runner then needs the option `--ca-bundle`.
    """
    whole = json.loads(gzip.decompress(payload))
    text: str = whole["index"]["ca_bundle"]
    whole["index"]["ca_bundle"] = None
    return gzip.compress(json.dumps(whole).encode(), 6, mtime=0), text.encode()
