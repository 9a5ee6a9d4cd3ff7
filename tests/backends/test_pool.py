"""Backends by name."""

from __future__ import annotations

import pytest

from stoke.backend.pool import Backends
from stoke.config.model import Config
from stoke.errors import RequestError


def test_an_unknown_backend_is_reported_with_the_known_names() -> None:
    with pytest.raises(RequestError) as caught:
        Backends(Config()).get("cloud")
    assert caught.value.field == "backend"
    assert "'cloud'" in caught.value.why
    assert "docker" in (caught.value.hint or "") and "local" in (caught.value.hint or "")


def test_a_backend_is_loaded_once_and_by_name() -> None:
    backends = Backends(Config())
    try:
        assert backends.get("local") is backends.get("local")
        assert backends.get("local").name == "local"
    finally:
        backends.close()
