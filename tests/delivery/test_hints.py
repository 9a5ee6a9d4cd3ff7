"""Follow the hints of the index check, without a process of its own, until the check passes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.config.model import Config
from stoke.delivery.index_check import _certificates, check_network
from stoke.delivery.uv_config import _login
from stoke.request.spec import IndexSettings
from tests.hints import filled, is_hint, refused
from tests.network import Authority
from tests.package_index import PackageIndex


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    served = PackageIndex("127.0.0.1", password="ada:right")
    yield served
    served.stop()


def test_an_authority_that_is_there_is_named(tmp_path: Path) -> None:
    def looked_at(bundle: str | None) -> str | None:
        result = _certificates(Config(index=IndexSettings(ca_bundle=bundle)))
        return None if result.works else result.hint

    template = "name an existing file, or unset index.ca_bundle"
    is_hint(looked_at("/not/there"), template)
    assert looked_at(str(Authority(tmp_path, "127.0.0.1").file)) is None
    assert looked_at(None) is None


def test_a_login_is_corrected_where_the_hint_says(
    private: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config(index=IndexSettings(url=private.url, credentials="env:MY_LOGIN"))
    monkeypatch.setenv("MY_LOGIN", "ada:wrong")
    broken = [one for one in check_network(config) if not one.works]
    (where,) = filled(broken[0].hint, "correct the user and password in {}")
    assert where == "env:MY_LOGIN"
    monkeypatch.setenv(where.removeprefix("env:"), "ada:right")
    assert all(one.works for one in check_network(config))


def test_a_login_that_has_gone_is_set_again() -> None:
    url = "https://h.example.org/simple"
    index = {"name": "ours", "url": url, "credentials": "env:UV_INDEX"}
    refused(lambda: _login(index, {}), "set it again, or submit the request again")
    environ = {"UV_INDEX": "https://ada:right@h.example.org/simple"}
    assert _login(index, environ) == ("ada", "right")
