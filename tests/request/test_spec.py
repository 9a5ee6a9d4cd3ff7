"""A request is checked at the door: an error names the field, and nothing wrong travels."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.spec import MAX_CODE, JobSpec, check_scope, make_spec
from stoke.text.units import parse_duration, parse_size

CODE = "print(1)"


def refused(field: str, **fields: Any) -> str:
    """The error for a request that has to be refused, which names that field."""
    with pytest.raises(RequestError) as caught:
        make_spec({"code": CODE, **fields})
    assert caught.value.field == field
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"{field}: ")
    return caught.value.why


# --- code ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "print('{{ workflow.name }} {% raw %} {{=1+1}}')",
        "print('$(id) $HOME `id` ${X} %(a)s')",
        "print('it''s', \"quoted\", '\\\\ back\\\\slashes \\x1b')",
        "print(1)\r\nprint(2)\r\n",
        "\ufeffprint(1)\n",
        "print('\U0001f600 \u202e \u2028')\x85\x0c\n",
        "def broken(:\n",
        "print(1)\r",
        "#" + "x" * 2**20,
        "print('''\n\t\n''')",
    ],
)
def test_code_is_kept_character_for_character(code: str) -> None:
    spec = make_spec({"code": code})
    assert spec.code == code
    assert JobSpec.model_validate_json(spec.model_dump_json()).code == code


@pytest.mark.parametrize("code", ["", " ", "\n\r\n\t", "\ufeff", "\ufeff \n"])
def test_there_has_to_be_something_to_run(code: str) -> None:
    assert "nothing to run" in refused("code", code=code)


def test_code_that_cannot_travel_is_refused_where_it_is_wrong() -> None:
    assert "NUL at character 5" in refused("code", code="print\0(1)")
    assert "character 7" in refused("code", code="print('\ud83d')")
    assert "8 MiB" in refused("code", code="x" * (MAX_CODE + 1))
    assert "8 MiB" in refused("code", code="\u20ac" * (MAX_CODE // 2))
    assert len(make_spec({"code": "#" * MAX_CODE}).code) == MAX_CODE


def test_a_request_without_code_and_one_with_something_else() -> None:
    with pytest.raises(RequestError) as caught:
        make_spec({})
    assert (caught.value.field, caught.value.why) == (
        "code",
        "is empty; there is nothing to run",
    )
    assert refused("codes", codes="print(1)") == "is not a field of a request"
    assert refused("index.user", index={"user": "x"}) == "is not a field of a request"


@pytest.mark.parametrize("code", [None, 3, ["print(1)"], {"a": 1}, b"\xff"])
def test_code_of_another_kind(code: Any) -> None:
    assert refused("code", code=code)


# --- packages ------------------------------------------------------------------------------------

KEPT = [
    "pandas>=2,<3",
    "pandas >= 2 , < 3",
    "uvicorn[standard]==0.30.*",
    "Foo_Bar.baz~=1.4.2",
    'tomli>=2; python_version < "3.11"',
    "pkg @ https://example.org/pkg-1.0-py3-none-any.whl",
    "pkg @ git+https://example.org/pkg.git@v1.0#subdirectory=lib",
]


@pytest.mark.parametrize("text", KEPT)
def test_a_requirement_is_kept_exactly_in_either_list(text: str) -> None:
    assert make_spec({"code": CODE, "dependencies": [text]}).dependencies == (text,)
    spec = make_spec({"code": CODE, "requirements": f"# first\n{text}\n"})
    assert [entry.text for entry in spec.parsed_requirements().requirements] == [text]
    assert spec.requirements == f"# first\n{text}\n"
    assert spec.has_packages


@pytest.mark.parametrize(
    "text", ["pandas>=", "numpy==", "a b", "?", "numpy=1.2", "pkg[", "pkg;;", ""]
)
def test_a_requirement_that_does_not_parse_names_itself(text: str) -> None:
    why = refused("dependencies[1]", dependencies=["numpy", text])
    assert repr(text) in why
    if text:
        assert text in refused("requirements line 2", requirements=f"numpy\n{text}\n")


@pytest.mark.parametrize(
    "text",
    [
        "-e .",
        "--editable=.",
        ".",
        "./here",
        "../there",
        "/abs/pkg.whl",
        "~/pkg",
        "pkg-1.0-py3-none-any.whl",
        "file:///tmp/pkg.whl",
        "pkg @ file:///tmp/pkg.whl",
        "pkg @ ./here",
        "C:\\pkg",
    ],
)
def test_local_paths_are_refused(text: str) -> None:
    places: list[tuple[str, dict[str, Any]]] = [
        ("dependencies[0]", {"dependencies": [text]}),
        ("requirements line 3", {"requirements": f"numpy\n\n{text}"}),
    ]
    for field, fields in places:
        why = refused(field, **fields)
        assert "does not travel" in why
        assert text in why.replace("\\\\", "\\")


def test_a_hash_that_is_none_is_named() -> None:
    assert "line" not in refused("requirements line 1", requirements="numpy==1.0 --hash=sha256:12")
    assert "sha256" in refused(
        "requirements line 1", requirements="numpy==1.0 --hash=md5:" + "a" * 32
    )
    assert "pinned" in refused("requirements", requirements="--require-hashes\nnumpy\n")
    whole = "--require-hashes\nnumpy==1.0 --hash=sha256:" + "a" * 64
    assert make_spec({"code": CODE, "requirements": whole}).parsed_requirements().is_lock()
    assert "pinned" in refused("requirements", requirements=whole, dependencies=["pandas"])


@pytest.mark.parametrize("names", [["gcc"], ["python3Packages.numpy", "gtk+3"], ["a b"], ["; rm"]])
def test_system_packages_are_attribute_names(names: list[str]) -> None:
    good = all(set(name) <= set("abcdefghijklmnopqrstuvwxyzP.0123456789") for name in names)
    if good:
        assert make_spec({"code": CODE, "system": names}).system == tuple(names)
    else:
        assert "is not the name of a Nix package" in refused("system", system=names)


@pytest.mark.parametrize(
    "name", ["", "-rf", "a;b", "a b", "$(id)", "a/b", "{{x}}", "a..b", "gcc\n", "x" * 201, "é"]
)
def test_a_system_package_is_no_shell_line(name: str) -> None:
    assert "Nix package" in refused("system", system=["gcc", name])


def test_too_many_system_packages() -> None:
    assert "501" in refused("system", system=["gcc"] * 501)


# --- the other fields ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version", ["3.12", "3", "3.13.1", ">=3.11,<3.14", " >= 3.11 ", "==3.12.*"]
)
def test_python_versions(version: str) -> None:
    assert make_spec({"code": CODE, "python": version}).python == version


@pytest.mark.parametrize(
    "version", ["", "three", "3.12;rm", ">=", "3.12,", "python3.12", "3.1.2.3", "99", "312", "2.7"]
)
def test_invalid_python_versions(version: str) -> None:
    assert repr(version) in refused("python", python=version)


@pytest.mark.parametrize("name", ["default", "a", "a1", "team-a", "x" * 40, "0"])
def test_scope_names(name: str) -> None:
    assert check_scope(name) == name
    assert make_spec({"code": CODE, "scope": name}).scope == name


@pytest.mark.parametrize(
    "name", ["", "-", "-a", "a-", "A", "a_b", "a.b", "x" * 41, "a b", "../up", "a\n", "{{x}}", "ä"]
)
def test_invalid_scope_names(name: str) -> None:
    assert "is not a scope name" in refused("scope", scope=name)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 * 1024**2),
        ("2Gi", 2 * 1024**3),
        ("2GiB", 2 * 1024**3),
        ("1.5 GB", int(1.5 * 1024**3)),
        ("1t", 1024**4),
        ("5000000", 5_000_000),
        (5_000_000, 5_000_000),
        (" 8M ", 8 * 1024**2),
    ],
)
def test_sizes(text: Any, size: int) -> None:
    assert parse_size(text) == size
    assert make_spec({"code": CODE, "memory": text}).memory == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lots",
        "-1g",
        "1x",
        "1.2.3g",
        "0x10",
        "1e9",
        "1k",
        0,
        -5,
        1.5,
        "NaN",
        "\u0661g",
        "9" * 400,
        "9999999t",
    ],
)
def test_invalid_memory_limits(text: Any) -> None:
    assert refused("memory", memory=text)


SIZE = "is not a size from 4m to 1024t; write it as 512m, 2g or 1.5GiB"
TIME = "is not a duration above 0 s and up to 365 days; write it as 90s, 5m or 1h30m"
CORES = "is not a number of cores above 0 and up to 4096; write 2 or 0.5"


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("shm_size", "1m", f"'1m' {SIZE}"),
        ("memory", "2000t", f"'2000t' {SIZE}"),
        ("memory", 5, f"5 {SIZE}"),
        ("memory", [], "must be a whole number"),
        ("timeout", 0, f"0 {TIME}"),
        ("timeout", [], "must be a number such as 2 or 0.5"),
        ("cpu", 5000, f"5000 {CORES}"),
        ("cpu", "two", f"'two' {CORES}"),
        ("cpu", float("inf"), f"inf {CORES}"),
        ("cpu", [], "must be a number such as 2 or 0.5"),
        ("args", "a", "must be a list"),
        ("args", [1], "must be text"),
        ("env", [], "must be a table"),
        ("index", 3, "must be a table"),
        ("use_cache", "perhaps", "must be true or false"),
    ],
)
def test_a_wrong_type_or_range_is_reported_in_plain_words(field: str, value: Any, why: str) -> None:
    with pytest.raises(RequestError) as caught:
        make_spec({"code": CODE, field: value})
    assert caught.value.field.partition(".")[0] == field
    assert caught.value.why == why


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d2h3m4.5s", 93_784.5),
        ("0.5", 0.5),
        (1.5, 1.5),
        (" 10s ", 10),
    ],
)
def test_durations(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert make_spec({"code": CODE, "timeout": text}).timeout == seconds


@pytest.mark.parametrize(
    "text",
    ["", " ", "soon", "-5s", "1m1h", "5ms", "1y", 0, -1, "0s", "400d", float("nan"), float("inf")],
)
def test_invalid_timeouts(text: Any) -> None:
    assert refused("timeout", timeout=text)


@pytest.mark.parametrize("cpu", [0, -1, 5000, float("nan"), float("inf"), "many"])
def test_invalid_cpu_limits(cpu: Any) -> None:
    assert refused("cpu", cpu=cpu)


@pytest.mark.parametrize(
    "image", ["python:3.13-slim", "host.example:5000/a/b@sha256:" + "a" * 64, "X", "a.b/c"]
)
def test_images(image: str) -> None:
    assert make_spec({"code": CODE, "image": image}).image == image


@pytest.mark.parametrize("image", ["", "-v", "a b", "a;b", "$(id)", "{{x}}", "a\n", "x" * 600])
def test_invalid_images(image: str) -> None:
    assert "is not the name of an image" in refused("image", image=image)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A\n", "é"])
def test_invalid_variable_names(name: str) -> None:
    assert "is not the name of a variable" in refused("env", env={name: "x"})
    assert "is not the name of a variable" in refused("secrets", secrets={name: "env:X"})


def test_values_are_any_text_that_can_travel() -> None:
    value = "{{ }} $(X) 'quotes' \"double\" \\ \n\r \U0001f600 =x"
    spec = make_spec({"code": CODE, "env": {"A": value}, "args": [value, "", "-x", "--"]})
    assert spec.env == {"A": value}
    assert spec.args == (value, "", "-x", "--")
    assert "NUL" in refused("env.A", env={"A": "a\0b"})
    assert "surrogate" in refused("args.1", args=["a", "\udc80"])


# --- what is secret ------------------------------------------------------------------------------


def test_a_hidden_value_does_not_pass_for_a_value() -> None:
    """What `show` prints can be submitted again, but not with `***` for a password."""
    assert "--secret TOKEN=env:TOKEN" in refused("env", env={"TOKEN": "***"})
    assert "TOKEN" in refused("secrets", secrets={"TOKEN": "***"})


@pytest.mark.parametrize(
    "given", ["hunter2-in-clear", "env:", "ENV:X", "file:", "vault:x", "user:hunter2"]
)
def test_a_secret_is_given_by_reference_and_not_repeated_in_the_error(given: str) -> None:
    places: list[tuple[str, str, dict[str, Any]]] = [
        ("secrets", "NAME=env:OTHER or NAME=file:/path", {"secrets": {"TOKEN": given}}),
        ("index.credentials", "env:NAME or file:/path", {"index": {"credentials": given}}),
    ]
    for field, form, fields in places:
        why = refused(field, **fields)
        assert f"write {form}" in why
        assert "hunter2" not in why


def test_a_variable_is_either_plain_or_secret() -> None:
    assert "both in env and in secrets" in refused(
        "request", env={"A": "1"}, secrets={"A": "env:A"}
    )


PASSWORDS = [
    "https://user:hunter2@index.example/simple",
    "https://hunter2@index.example/simple",
    "http://user:hun/ter2@index.example/",
    "https://user:hun#ter2@index.example/",
    "https://user:hun?ter2@index.example/",
    "HTTPS://user:hunter2@index.example/simple",
]


@pytest.mark.parametrize("url", PASSWORDS)
@pytest.mark.parametrize("field", ["url", "proxy", "extra"])
def test_an_address_with_a_password_is_refused_and_not_repeated(field: str, url: str) -> None:
    why = refused(f"index.{field}", index={field: [url] if field == "extra" else url})
    for piece in ("hunter2", "hun/ter2", "ter2@"):
        assert piece not in why


@pytest.mark.parametrize("url", [url for url in PASSWORDS if "hunter2" in url])
def test_a_password_in_a_requirement_is_refused_and_not_repeated(url: str) -> None:
    places: list[tuple[str, dict[str, Any]]] = [
        ("dependencies[0]", {"dependencies": [f"pkg @ {url}"]}),
        ("requirements line 1", {"requirements": f"--index-url {url}"}),
        ("requirements line 1", {"requirements": f"pkg @ {url}"}),
    ]
    for field, fields in places:
        assert "hunter2" not in refused(field, **fields)


@pytest.mark.parametrize(
    "url", ["", "index.example/simple", "ftp://x", "https://", "https://a b", "-v"]
)
def test_invalid_index_addresses(url: str) -> None:
    assert refused("index.url", index={"url": url})


@pytest.mark.parametrize(
    "url", ["https://index.example/simple", "http://127.0.0.1:3141/root/", "https://[::1]:8080/x"]
)
def test_addresses_of_an_index(url: str) -> None:
    assert make_spec({"code": CODE, "index": {"url": url, "extra": [url]}}).index.extra == (url,)


# --- JSON ----------------------------------------------------------------------------------------

SPECS = st.fixed_dictionaries(
    {"code": st.sampled_from(["print(1)", "\ufeffx = '\U0001f600'\r\n"])},
    optional={
        "args": st.lists(st.sampled_from(["a", "", "-x", "{{ }}", "é\n"]), max_size=3),
        "dependencies": st.lists(st.sampled_from(KEPT), max_size=3),
        "requirements": st.sampled_from(
            ["", "numpy==1.26.4\n# end", "--index-url https://i.example/s"]
        ),
        "system": st.lists(st.sampled_from(["gcc", "python3Packages.numpy"]), max_size=2),
        "python": st.sampled_from(["3.12", ">=3.11,<3.14"]),
        "env": st.dictionaries(st.sampled_from(["A", "_B1"]), st.sampled_from(["", "x=y", "é"])),
        "secrets": st.dictionaries(st.just("TOKEN"), st.sampled_from(["env:X", "file:/x y"])),
        "index": st.just({"url": "https://i.example/simple", "credentials": "env:C"}),
        "nix": st.just({"url": "https://n.example/1.tar.gz", "sha256": "0" * 64}),
        "image": st.just("python:3.13"),
        "timeout": st.sampled_from(["5m", 1.5, "1h"]),
        "cpu": st.sampled_from([0.5, 2]),
        "memory": st.sampled_from(["512m", 2**30]),
        "shm_size": st.sampled_from(["64m", 2**33]),
        "use_cache": st.booleans(),
        "scope": st.sampled_from(["default", "team-a"]),
    },
)


@given(fields=SPECS)
def test_a_spec_comes_back_from_its_json(fields: dict[str, Any]) -> None:
    spec = make_spec(fields)
    again = make_spec(json.loads(spec.model_dump_json()))
    assert again == spec
    assert make_spec(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_the_json_has_references_and_never_their_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN_PLACE", "hunter2")
    monkeypatch.setenv("INDEX_PLACE", "user:hunter2")
    spec = make_spec(
        {
            "code": CODE,
            "secrets": {"TOKEN": "env:TOKEN_PLACE"},
            "index": {"url": "https://i.example/simple", "credentials": "env:INDEX_PLACE"},
        }
    )
    text = spec.model_dump_json()
    assert "hunter2" not in text
    assert "env:TOKEN_PLACE" in text and "env:INDEX_PLACE" in text
    assert "hunter2" not in repr(spec)


def test_a_spec_cannot_be_changed_behind_the_door() -> None:
    spec = make_spec({"code": CODE})
    with pytest.raises(ValueError, match="frozen"):
        setattr(spec, "code", "import os")  # noqa: B010


def test_a_secret_that_the_engine_keeps_is_named_and_no_credential() -> None:
    spec = make_spec({"code": "pass", "secrets": {"TOKEN": "secret:team.api/token_1"}})
    assert spec.secrets == {"TOKEN": "secret:team.api/token_1"}
    for text in ("secret:", "secret:api", "secret:Api/x", "secret:a/b/c", "secret:a/{{x}}"):
        refused("secrets", secrets={"TOKEN": text})
    refused("index.credentials", index={"credentials": "secret:api/token"})
