"""Which requests share an environment: what decides it, and what does not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.cache.keys import python_hash, request_hash
from stoke.delivery.uv_config import uv_config
from stoke.request.spec import JobSpec, make_spec

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
        {"shm_size": "1g"},
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
def test_fields_that_do_not_change_the_environment_keep_its_hash(changes: dict[str, Any]) -> None:
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
    {"constraints": "urllib3<2\n"},
    {"constraints": "urllib3<3\n"},
    {"constraints": "idna==3.7 --hash=sha256:" + "0" * 64},
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


def test_fields_that_change_the_environment_change_its_hash() -> None:
    hashes = [hash_of(**{**BASE, **changes}) for changes in CHANGES]
    assert len(set(hashes)) == len(CHANGES)


def test_a_lock_is_another_environment_than_the_same_lines_resolved() -> None:
    lines = "idna==3.7 --hash=sha256:" + "0" * 64 + "\n"
    requests: list[dict[str, Any]] = [
        {"requirements": lines},
        {"requirements": lines, "locked": True},
        {"requirements": "--require-hashes\n" + lines},
    ]
    assert len({hash_of(**fields) for fields in requests}) == 3


def test_the_order_of_indexes_counts() -> None:
    """The first one that has a package serves it."""
    one, two = "https://one.example/simple", "https://two.example/simple"
    assert hash_of(index={"extra": [one, two]}) != hash_of(index={"extra": [two, one]})


# --- keys ----------------------------------------------------------------------------------------

# For each part of a request, values that mean different things to uv. A request is one value of each.
PARTS: dict[str, list[Any]] = {
    "dependencies": [["alpha"], ["alpha<2"], ["alpha", "beta"], ["alpha @ https://h/a.zip"]],
    "requirements": [
        "",
        "--pre\n",
        "--no-binary alpha\n",
        "--only-binary alpha\n",
        "--no-index\n",
        "-f https://h/links\n",
        "--extra-index-url https://h/more\n",
        "-i https://h/other\n",
    ],
    "index": [{}, {"url": "https://h/s"}, {"extra": ["https://h/s"]}, {"extra": ["https://h/t"]}],
    "python": [None, "3.12"],
    "image": [None, "python:3.12"],
}
SETTINGS: dict[str, list[Any]] = {
    "build-constraint-dependencies": [["setuptools<80"], ["setuptools<70"]],
    "config-settings": [{"a": "b"}, {"a": "c"}],
    "constraint-dependencies": [["alpha<2"], ["alpha<3"]],
    "dependency-metadata": [[{"name": "alpha", "requires-dist": []}]],
    "exclude-dependencies": [["beta"]],
    "exclude-newer": ["2024-01-01", "2025-01-01"],
    "extra-build-dependencies": [{"alpha": ["wheel"]}],
    "find-links": [["https://h/links"], ["https://h/others"]],
    "index": [
        [{"url": "https://h/u"}],
        [{"url": "https://h/u", "default": True}],
        [{"url": "https://h/u", "name": "u", "explicit": True}],
        [{"url": "https://h/v"}, {"url": "https://h/u"}],
        [{"url": "https://h/u"}, {"url": "https://h/v"}],
    ],
    "index-strategy": ["unsafe-best-match"],
    "no-binary": [True],
    "no-binary-package": [["alpha"], ["beta"]],
    "no-build": [True],
    "no-build-isolation": [True],
    "no-deps": [True],
    "no-index": [True],
    "no-sources": [True],
    "offline": [True],
    "override-dependencies": [["beta<2"]],
    "prerelease": ["allow", "disallow"],
    "resolution": ["lowest"],
    "sources": [{"alpha": {"url": "https://h/a.zip"}}, {"alpha": {"git": "https://h/a"}}],
    "torch-backend": ["cpu"],
}
# These decide what is in a lock, and nothing about its installation.
LOCK_ONLY = {
    "constraint-dependencies",
    "exclude-dependencies",
    "no-deps",
    "override-dependencies",
    "sources",
}


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    chosen = {name: draw(st.sampled_from(values)) for name, values in PARTS.items()}
    names = draw(st.sets(st.sampled_from(sorted(SETTINGS)), max_size=3))
    return {**chosen, "uv": {name: draw(st.sampled_from(SETTINGS[name])) for name in sorted(names)}}


def spec_of(request: dict[str, Any]) -> JobSpec:
    uv = {name: {"value": value, "source": "a test"} for name, value in request["uv"].items()}
    return make_spec({"code": "pass", **request, "uv": uv})


@given(requests(), st.data())
def test_requests_that_can_resolve_differently_share_no_lock(
    one: dict[str, Any], data: st.DataObject
) -> None:
    """Also for requests that differ in one thing only, which chance would seldom bring."""
    other = {**one, "uv": dict(one["uv"])}
    for part in data.draw(st.sets(st.sampled_from([*PARTS, *SETTINGS]), min_size=1, max_size=2)):
        if part in PARTS:
            other[part] = data.draw(st.sampled_from(PARTS[part]))
        elif value := data.draw(st.sampled_from([None, *SETTINGS[part]])):
            other["uv"][part] = value
        else:
            other["uv"].pop(part, None)
    first, second = python_hash(spec_of(one)), python_hash(spec_of(other))
    assert (first == second) == (one == other)

    def installation(request: dict[str, Any]) -> dict[str, Any]:
        uv = {name: it for name, it in request["uv"].items() if name not in LOCK_ONLY}
        decides = {name: request[name] for name in ("index",)}
        options = request["requirements"].replace("--pre\n", "")
        return {**decides, "options": options, "uv": uv}

    def key(request: dict[str, Any]) -> object:
        config = uv_config(spec_of(request))
        return config.header, config.build

    if key(one) == key(other):
        # Two spellings of one thing share an environment; nothing else does.
        assert spelled_out(installation(one)) == spelled_out(installation(other))


def spelled_out(request: dict[str, Any]) -> dict[str, Any]:
    """The indexes and options of a request, wherever they are written, in the order uv has them."""
    uv = dict(request["uv"])
    words = request["options"].split()
    options = dict(zip(words[::2], words[1::2], strict=False))
    taken = uv.pop("index", [])
    defaults = [
        options.get("-i"),
        request["index"].get("url"),
        *(one["url"] for one in taken if one.get("default")),
    ]
    rest = [one for one in taken if not one.get("default")]
    extra = [*request["index"].get("extra", []), options.get("--extra-index-url")]
    extra += [one["url"] for one in rest]
    return {
        "default": next((url for url in defaults if url), None),
        "extra": [url for url in dict.fromkeys(extra) if url],
        "explicit": [one["url"] for one in rest if one.get("explicit")],
        "no-index": "--no-index" in words or bool(uv.pop("no-index", False)),
        "links": sorted({*uv.pop("find-links", []), options.get("-f", "")} - {""}),
        "no-binary": sorted(
            {*uv.pop("no-binary-package", []), options.get("--no-binary", "")} - {""}
        ),
        "only-binary": options.get("--only-binary"),
        "rest": {name: value for name, value in uv.items() if name != "no-index"},
    }


def test_settings_of_the_connection_share_a_lock() -> None:
    uv = {"uv": {"native-tls": True, "keyring-provider": "subprocess"}}
    plain = {"dependencies": ["alpha"], "uv": {}}
    assert python_hash(spec_of({**plain, **uv})) == python_hash(spec_of(plain))
    assert python_hash(spec_of(plain)) == python_hash(make_spec({"code": "1", **plain, "uv": None}))
