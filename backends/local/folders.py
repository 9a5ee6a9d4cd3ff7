"""Where the local backend keeps its jobs."""

from __future__ import annotations

from pathlib import Path

from stoke.files.paths import state_dir


def job_folder(job_id: str) -> Path:
    return state_dir() / "local" / job_id
