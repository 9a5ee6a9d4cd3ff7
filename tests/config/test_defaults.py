"""What the configuration fills in, and what it must not."""

from __future__ import annotations

from stoke.config.defaults import with_changes, with_defaults, with_packages
from stoke.config.model import Config
from stoke.request.sources import request_from_options
from stoke.request.spec import IndexSettings

CONFIG = Config(
    scope="team",
    index=IndexSettings(
        url="https://ours.test/simple", credentials="env:OURS", proxy="http://proxy.test"
    ),
)


def test_what_is_left_open_is_filled_in() -> None:
    spec = with_defaults(request_from_options(code="1"), CONFIG)
    assert (spec.scope, spec.index) == ("team", CONFIG.index)


def test_what_was_asked_for_stays() -> None:
    spec = with_defaults(request_from_options(code="1", scope="default"), CONFIG)
    assert spec.scope == "default"


def test_configured_credentials_never_go_to_another_address() -> None:
    for index in ({"url": "https://theirs.test/simple"}, {"extra": ["https://theirs.test/simple"]}):
        spec = with_defaults(request_from_options(code="1", index=index), CONFIG)
        assert spec.index.credentials is None
        assert spec.index.proxy == "http://proxy.test"


def test_changes_are_checked_and_what_was_left_open_stays_open() -> None:
    spec = request_from_options(code="1", timeout="1m")
    changed = with_changes(spec, image="python:3.12", use_cache=None)
    assert (changed.image, changed.timeout, changed.use_cache) == ("python:3.12", 60, True)
    assert "scope" not in changed.model_fields_set
    assert with_changes(spec, image=None) is spec


def test_packages_that_are_added_to_a_lockfile_leave_its_versions() -> None:
    lock = f"six==1.17.0 --hash=sha256:{'0' * 64}\n"
    spec = with_packages(request_from_options(code="1", requirements=lock, locked=True), ["numpy"])
    assert (spec.dependencies, spec.requirements, spec.locked) == (("numpy",), lock, False)
    assert with_packages(spec, []) is spec
