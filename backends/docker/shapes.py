"""The shape of the engine's record of a container: each field that is read, and its type."""

from __future__ import annotations

from stoke.files.shapes import EACH, Shape, is_count

_TEXTS = {EACH: str}
RECORD: Shape = {
    "Id": str,
    "Name": str,
    "Config!": {"Labels": _TEXTS, "Cmd": [str]},
    "HostConfig": {
        "LogConfig": {"Type": str, "Config": _TEXTS},
        "Memory": is_count,
        "NanoCpus": is_count,
    },
    "State!": {
        "Status!": str,
        "Error": str,
        "StartedAt": str,
        "FinishedAt": str,
        "OOMKilled": bool,
    },
}
