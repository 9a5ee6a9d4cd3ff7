"""Disks that refuse: `os.write` replaced for the files of one folder.

Other parts of the process write too: threads of the test run, signal handlers, and what is left of
earlier tests when Python collects it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


def replace_write(
    monkeypatch: pytest.MonkeyPatch, folder: Path, write: Callable[[int, bytes], int]
) -> None:
    real = os.write
    inside = os.path.realpath(folder) + "/"

    def chosen(descriptor: int, data: bytes) -> int:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        return (write if path.startswith(inside) else real)(descriptor, data)

    monkeypatch.setattr(os, "write", chosen)
