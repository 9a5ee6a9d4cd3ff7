"""Fixtures of the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.served import Client, make_token, serving


@pytest.fixture
def client(own_home: Path) -> Iterator[Client]:
    """A client that may do everything, of a server with the local backend."""
    secret = make_token("admin", "admin")
    with serving() as address:
        yield Client(address, secret)
