"""Where system packages come from: checked at the door, kept with the job, part of its hash."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from stoke.cache.keys import request_hash, request_keys
from stoke.config.defaults import with_defaults
from stoke.config.model import Config
from stoke.delivery.payload import make_payload
from stoke.errors import RequestError
from stoke.request.spec import JobSpec, NixSettings, make_spec

PIN = {"url": "https://nixpkgs.example/1.tar.gz", "sha256": "0" * 52}
KEY = "cache.example-1:" + "A" * 43 + "="


def spec(**nix: Any) -> JobSpec:
    return make_spec({"code": "1", "system": ["gcc"], "nix": nix})


def payload(of: JobSpec) -> dict[str, Any]:
    made = make_payload(
        of, request_keys(of), nonce="n", program="main.py", lock_ttl=0, upgrade=False
    )
    out: dict[str, Any] = json.loads(gzip.decompress(made))
    return out


def test_the_pin_of_this_program_is_whole() -> None:
    pin = NixSettings()
    revision = pin.url.rpartition("/")[2].removesuffix(".tar.gz")
    assert len(revision) == 40 and set(revision) <= set("0123456789abcdef")
    assert NixSettings.model_validate(pin.model_dump()) == pin


@pytest.mark.parametrize(
    "nix",
    [
        PIN,
        {**PIN, "sha256": "sha256-" + "A" * 43 + "="},
        {**PIN, "sha256": "ab" * 32},
        {**PIN, "substituters": [], "trusted_keys": []},
        {"substituters": ["https://cache.example/x", "file:///mnt/cache"], "trusted_keys": [KEY]},
    ],
)
def test_settings_that_are_right_travel_as_they_are(nix: dict[str, Any]) -> None:
    made = spec(**nix)
    sent = payload(made)["system"]
    assert {name: sent[name] for name in nix} == nix
    assert make_spec(json.loads(made.model_dump_json())) == made


@pytest.mark.parametrize(
    ("nix", "told"),
    [
        ({"url": PIN["url"]}, "nix-prefetch-url --unpack https://nixpkgs.example/1.tar.gz"),
        ({"sha256": PIN["sha256"]}, "url is missing"),
        ({**PIN, "url": "/home/me/nixpkgs"}, "web address"),
        ({**PIN, "url": "https://me:hunter2@nixpkgs.example/x"}, "password"),
        ({**PIN, "sha256": "main"}, "not a hash"),
        ({**PIN, "sha256": '0" + abort "'}, "not a hash"),
        ({"substituters": ["https://a b"]}, "address"),
        ({"substituters": ["https://a\nsandbox = true"]}, "address"),
        ({"substituters": ["https://me:hunter2@cache.example"]}, "password"),
        ({"trusted_keys": ["cache.example-1"]}, "public key"),
        ({"trusted_keys": [KEY + "\nrequire-sigs = false"]}, "public key"),
    ],
)
def test_settings_that_are_wrong_are_named(nix: dict[str, Any], told: str) -> None:
    with pytest.raises(RequestError) as refused:
        spec(**nix)
    assert refused.value.field.startswith("nix")
    assert told in refused.value.why
    assert "hunter2" not in str(refused.value)


def test_the_configured_settings_travel_with_requests_for_system_packages() -> None:
    config = Config(nix=NixSettings.model_validate(PIN))
    asks = make_spec({"code": "1", "system": ["gcc"]})
    assert with_defaults(asks, config).nix == config.nix
    own = spec(**{**PIN, "sha256": "1" * 52})
    assert with_defaults(own, config).nix == own.nix
    assert with_defaults(make_spec({"code": "1"}), config).nix is None


def test_the_settings_count_for_the_hash_only_beside_system_packages() -> None:
    changes: list[dict[str, Any]] = [
        {},
        PIN,
        {**PIN, "sha256": "1" * 52},
        {"substituters": []},
        {"substituters": ["https://cache.example"]},
        {"trusted_keys": [KEY]},
    ]
    assert len({request_hash(spec(**nix)) for nix in changes}) == len(changes)
    assert request_hash(spec()) == request_hash(make_spec({"code": "1", "system": ["gcc"]}))
    without = {request_hash(make_spec({"code": "1", "nix": nix})) for nix in changes}
    assert without == {request_hash(make_spec({"code": "1"}))}


def test_packages_keep_their_order_and_come_once() -> None:
    made = make_spec({"code": "1", "system": ["gcc", "ffmpeg", "gcc"]})
    assert payload(made)["system"]["packages"] == ["gcc", "ffmpeg"]
    assert payload(make_spec({"code": "1"}))["system"] is None
