"""Which of this machine's GPUs a job has for itself.

The job's supervisor holds a file lock for each of them until it ends, so a GPU is free again whatever
ends the job. The locks are a user's own: they do not know of other users' jobs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from stoke.backend.api import BusyError
from stoke.config.model import LocalConfig
from stoke.errors import RequestError
from stoke.files.file_lock import take_lock
from stoke.files.paths import make_private, state_dir

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""https://docs.nvidia.com/cuda/cuda-c-programming-guide/index.html#env-vars"""
_LIST = ("nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader")
_LIST_SECONDS = 10.0


@dataclass(frozen=True)
class TakenGpus:
    names: tuple[str, ...]
    locks: tuple[int, ...]
    """Open file locks, one a GPU: the GPUs are taken while any process has these descriptors open."""

    @property
    def variables(self) -> dict[str, str]:
        return {VISIBLE: ",".join(self.names)}

    def close(self) -> None:
        for lock in self.locks:
            os.close(lock)


def list_gpus(local: LocalConfig, variables: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the GPUs that jobs may have: the configured ones, or those that nvidia-smi lists.

    Those that the user's own CUDA_VISIBLE_DEVICES names win over nvidia-smi.
    """
    if local.gpus is not None:
        return local.gpus
    if VISIBLE in variables:
        names = [name.strip() for name in variables[VISIBLE].split(",")]
        return tuple(name for name in names if name and name != "-1")
    if shutil.which(_LIST[0]) is None:
        return ()
    try:
        listed = subprocess.run(
            _LIST, capture_output=True, text=True, timeout=_LIST_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in listed.stdout.splitlines() if line.strip())


def take_gpus(count: int, local: LocalConfig) -> TakenGpus:
    """Take GPUs that no other job has. Raises if this machine has too few, or too few are free."""
    names = list_gpus(local)
    if count > len(names):
        has = f"has {len(names)}" if names else "has none that nvidia-smi lists"
        raise RequestError(
            "gpu",
            f"{count} wanted, and this machine {has}",
            "name those that jobs may have: [local] gpus in config.toml; or run elsewhere: -b argo",
        )
    taken = _take(names, count)
    if len(taken.names) == count:
        return taken
    taken.close()
    raise BusyError(
        f"{count} of {len(names)} GPUs wanted, {len(taken.names)} free: running jobs have the others",
        "wait until one ends: stoke jobs; or share one: --env CUDA_VISIBLE_DEVICES=0",
    )


def _take(names: Sequence[str], count: int) -> TakenGpus:
    folder = make_private(state_dir() / "gpus")
    taken: dict[str, int] = {}
    for name in names:
        if len(taken) < count:
            lock = take_lock(_lock_file(folder, name), wait=False)
            if lock is not None:
                taken[name] = lock
    return TakenGpus(tuple(taken), tuple(taken.values()))


def _lock_file(folder: Path, name: str) -> Path:
    return folder / f"{quote(name, safe='')}.lock"
