"""Which requests share an environment: what decides it, and what does not."""

from __future__ import annotations

import re
from typing import Any

import pytest

from stoke.environment import request_hash
from stoke.spec import make_spec

HASH_A, HASH_B = "sha256:" + "a" * 64, "sha256:" + "b" * 64


def hash_of(**fields: Any) -> str:
    return request_hash(make_spec({"code": "print(1)", **fields}))


BASE: dict[str, Any] = {
    "dependencies": ["numpy", "pandas>=2,<3"],
    "requirements": f"requests==2.32.3 --hash={HASH_A} --hash={HASH_B}\nsix\n",
    "system": ["gcc", "make"],
    "python": "3.12",
    "index": {"url": "https://index.example/simple", "extra": ["https://more.example/simple"]},
    "image": "python:3.12",
}


def test_a_hash_is_stable_and_64_hex_digits() -> None:
    assert re.fullmatch("[0-9a-f]{64}", hash_of(**BASE))
    assert hash_of(**BASE) == hash_of(**BASE)


@pytest.mark.parametrize(
    "changes",
    [
        {"code": "something else"},
        {"args": ["a"]},
        {"env": {"A": "1"}},
        {"secrets": {"A": "env:A"}},
        {"timeout": 5},
        {"cpu": 2},
        {"memory": "1g"},
        {"use_cache": False},
        {"scope": "team"},
        {"dependencies": ["pandas>=2,<3", "numpy"]},
        {"system": ["make", "gcc"]},
        {"requirements": f"# a comment\n\nsix\nrequests==2.32.3 --hash={HASH_B} --hash={HASH_A}"},
        {
            "requirements": f"six\r\nrequests==2.32.3 \\\r\n  --hash={HASH_A} \\\r\n  --hash={HASH_B}"
        },
    ],
)
def test_what_does_not_decide_the_environment(changes: dict[str, Any]) -> None:
    assert hash_of(**{**BASE, **changes}) == hash_of(**BASE)


CHANGES: list[dict[str, Any]] = [
    {},
    {"dependencies": ["numpy"]},
    {"dependencies": ["numpy", "pandas>=2"]},
    {"dependencies": [], "requirements": BASE["requirements"] + "numpy\npandas>=2,<3\n"},
    {"requirements": "six\n"},
    {"requirements": f"requests==2.32.3 --hash={HASH_A}\nsix\n"},
    {"requirements": "requests==2.32.3\nsix\n"},
    {"requirements": BASE["requirements"] + "--pre\n"},
    {"requirements": BASE["requirements"] + "--only-binary :all:\n"},
    {"requirements": BASE["requirements"] + "--index-url https://third.example/simple\n"},
    {"requirements": BASE["requirements"] + "--extra-index-url https://third.example/simple\n"},
    {"system": ["gcc"]},
    {"python": "3.13"},
    {"python": None},
    {"image": "python:3.12-slim"},
    {"image": None},
    {"index": {}},
    {"index": {"url": "https://index.example/simple"}},
    {"index": {**BASE["index"], "proxy": "http://proxy.example:3128"}},
    {"index": {**BASE["index"], "credentials": "env:A"}},
    {"index": {**BASE["index"], "extra": ["https://other.example/simple"]}},
]


def test_whatever_decides_the_environment_gives_another_hash() -> None:
    hashes = [hash_of(**{**BASE, **changes}) for changes in CHANGES]
    assert len(set(hashes)) == len(CHANGES)


def test_the_order_of_indexes_counts() -> None:
    """The first one that has a package serves it."""
    one, two = "https://one.example/simple", "https://two.example/simple"
    assert hash_of(index={"extra": [one, two]}) != hash_of(index={"extra": [two, one]})
