"""Fixtures of the screens in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.served import make_token


@pytest.fixture
def secret(own_home: Path) -> str:
    """A token that opens the screens."""
    return make_token("browser", "admin")
