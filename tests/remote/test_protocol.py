"""What both sides agree on is the same on both."""

from __future__ import annotations

import gzip
import json
import typing

from stoke import errors
from stoke.cache.keys import request_keys
from stoke.delivery.payload import make_payload
from stoke.remote import protocol, schema
from stoke.request.spec import make_spec


def constants(namespace: type) -> set[str]:
    return {value for name, value in vars(namespace).items() if not name.startswith("_")}


def test_exit_codes_of_jobs_and_of_stoke_are_the_same() -> None:
    assert protocol.EXIT_TIMEOUT == errors.EXIT_TIMEOUT
    assert protocol.EXIT_ENVIRONMENT == errors.EXIT_ENGINE


def test_every_kind_of_event_has_its_fields() -> None:
    assert constants(protocol.EventKind) == protocol.EVENT_FIELDS.keys()


def test_a_payload_has_the_fields_of_its_schema() -> None:
    spec = make_spec({"code": "pass", "dependencies": ["six"], "system": ["hello"]})
    packed = make_payload(
        spec, request_keys(spec), nonce="n", program="main.py", lock_ttl=0, upgrade=False
    )
    payload = json.loads(gzip.decompress(packed))
    assert payload["version"] == protocol.PAYLOAD_VERSION
    for value, kind in (
        (payload, schema.Payload),
        (payload["index"], schema.IndexPayload),
        (payload["system"], schema.SystemPayload),
        (payload["settings"], schema.UvSettingsPayload),
        (payload["uv"], schema.UvRelease),
    ):
        assert value.keys() == typing.get_type_hints(kind).keys()
