"""A package index with what the projects of `tests.projects` need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.package_index import PackageIndex
from tests.projects import add_packages


@pytest.fixture(scope="session")
def index() -> Iterator[PackageIndex]:
    served = PackageIndex("127.0.0.1")
    add_packages(served)
    yield served
    served.stop()


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "0")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
