"""Disks that refuse: `os.write` replaced for the thread of the test alone.

Other threads of the process write too, those of the test run among them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest


def replace_write(monkeypatch: pytest.MonkeyPatch, write: Callable[[int, bytes], int]) -> None:
    real = os.write
    own = threading.get_ident()

    def chosen(descriptor: int, data: bytes) -> int:
        return (write if threading.get_ident() == own else real)(descriptor, data)

    monkeypatch.setattr(os, "write", chosen)
