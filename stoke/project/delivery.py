"""A snapshot on its way to a backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProjectDelivery:
    """What a backend hands to a job besides its payload, which names the snapshot's digest.

    `pack` is a file on this machine with all contents that the job's cache volume is not known to have,
    or None if it has everything. Its first line is the JSON list of `[sha256, size]`; the contents
    follow in that order, without anything between. The backend may delete it once the job has it.
    """

    digest: str
    pack: Path | None
