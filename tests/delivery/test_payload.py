"""What travels with a job: complete, the same for the same request, and secrets nowhere else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from stoke.cache.keys import request_hash, request_keys
from stoke.delivery.payload import MAX_COPY, make_payload, read_reference
from stoke.errors import RequestError
from stoke.request.spec import JobSpec, make_spec

HASH_A, HASH_B, HASH_C = ("sha256:" + digit * 64 for digit in "abc")


def spec_of(**fields: Any) -> JobSpec:
    return make_spec({"code": "print(1)", **fields})


def packed(spec: JobSpec, upgrade: bool = False) -> bytes:
    return make_payload(
        spec, request_keys(spec), nonce="n0nce", program="main.py", lock_ttl=3600, upgrade=upgrade
    )


def payload_of(upgrade: bool = False, **fields: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(gzip.decompress(packed(spec_of(**fields), upgrade)))
    return made


def test_the_same_request_gives_the_same_bytes() -> None:
    """Backends may compare, and a retried submit sends what it sent."""
    spec = spec_of(dependencies=["numpy"], env={"B": "2", "A": "1"})
    assert packed(spec) == packed(spec)
    assert packed(spec)[:4] == b"\x1f\x8b\x08\x00"
    assert packed(spec)[4:8] == bytes(4)


def test_the_payload_holds_code_and_arguments_exactly() -> None:
    code = "\ufeffprint('{{ }} $(X) \\\\ \U0001f600')\r\n" + "#" * 2**20
    payload = payload_of(code=code, args=["-x", "{{a}}", "é\n"], env={"A": "=$(id)"}, timeout="1m")
    assert payload["code"] == code
    assert payload["args"] == ["-x", "{{a}}", "é\n"]
    assert payload["env"] == {"A": "=$(id)"}
    assert (payload["nonce"], payload["program"], payload["timeout"]) == ("n0nce", "main.py", 60)


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"code": "1"}, {"kind": "code", "name": ""}),
        ({"module": "http.server"}, {"kind": "module", "name": "http.server"}),
        ({"exec": "pytest"}, {"kind": "program", "name": "pytest"}),
    ],
)
def test_the_payload_says_what_to_start(fields: dict[str, Any], kind: dict[str, str]) -> None:
    payload = json.loads(gzip.decompress(packed(make_spec({**fields, "args": ["-q"]}))))
    assert (payload["start"], payload["args"]) == (kind, ["-q"])
    assert payload["code"] == fields.get("code", "")


def test_packages_of_both_lists_are_in_the_payload_as_written() -> None:
    payload = payload_of(
        dependencies=["pandas>=2,<3"],
        requirements=(
            '--pre\n--only-binary :all:\nuvicorn[standard] >= 0.30 ; python_version>"3.8"\n# end\n'
        ),
    )
    assert payload["requirements"] == [
        "--only-binary :all:",
        "pandas>=2,<3",
        'uvicorn[standard] >= 0.30 ; python_version>"3.8"',
    ]
    assert payload["pre"] is True
    assert payload["lock"] is None
    assert payload_of()["pre"] is False
    assert payload_of()["requirements"] == []
    assert payload_of(requirements="--pre\n")["requirements"] == []


def test_hashes_are_kept_by_canonical_name() -> None:
    payload = payload_of(
        requirements=(
            f"Foo_Bar.baz==1.0 --hash={HASH_A} --hash={HASH_B}\n"
            f"six @ https://files.example/six-1.0.zip --hash={HASH_C}\n"
            "numpy\n"
        )
    )
    assert payload["hashes"] == {"foo-bar-baz": [HASH_A, HASH_B], "six": [HASH_C]}
    assert payload["lock"] is None


def test_hashes_of_a_package_that_is_named_twice_are_all_kept() -> None:
    """Two versions for two Pythons: either one's hashes are the user's."""
    payload = payload_of(
        requirements=(
            f'foo==1.0 ; python_version < "3.12" --hash={HASH_A}\n'
            f'Foo==2.0 ; python_version >= "3.12" --hash={HASH_B}\n'
            "six\n"
        )
    )
    assert payload["hashes"] == {"foo": [HASH_A, HASH_B]}


def test_only_a_locked_request_has_a_lockfile_in_the_payload() -> None:
    text = f"foo==1.0 --hash={HASH_A}\nbar==2.0 --hash={HASH_B}\n"
    lock = [["foo==1.0", [HASH_A], None], ["bar==2.0", [HASH_B], None]]
    assert payload_of(requirements=text, locked=True)["lock"] == lock
    noted = f"foo==1.0 \\\n    --hash={HASH_A}\n    # from https://h.example/simple\n"
    assert payload_of(requirements=noted, locked=True)["lock"] == [
        ["foo==1.0", [HASH_A], "https://h.example/simple"]
    ]
    assert payload_of(requirements=text)["lock"] is None
    assert payload_of(requirements="--require-hashes\n" + text)["lock"] is None


def test_constraints_and_their_hashes_are_in_the_payload() -> None:
    payload = payload_of(
        dependencies=["foo"], constraints=f"# why\nbar[x]<2\nfoo==1.0 --hash={HASH_A}\n"
    )
    assert payload["requirements"] == ["foo"]
    assert payload["constraints"] == ["bar[x]<2", "foo==1.0"]
    assert payload["hashes"] == {"foo": [HASH_A]}


@pytest.mark.parametrize(
    ("code", "encoding"),
    [
        ("print('café')", "utf-8"),
        ("# coding: latin-1\nprint('café')", "iso-8859-1"),
        ("#!/usr/bin/python\r\n# vim: set fileencoding=cp1252 :\r\n", "cp1252"),
        ("x = 1\n# coding: latin-1\n", "utf-8"),
        ("\ufeff# coding: utf-8\n1", "utf-8"),
        ("# coding: nonsense\n1", "utf-8"),
    ],
)
def test_code_is_written_in_the_encoding_that_it_declares(code: str, encoding: str) -> None:
    assert payload_of(code=code)["encoding"] == encoding


def test_how_old_a_lock_may_be() -> None:
    assert (payload_of()["lock_ttl"], payload_of()["upgrade"]) == (3600, False)
    assert (payload_of(upgrade=True)["lock_ttl"], payload_of(upgrade=True)["upgrade"]) == (0, True)


def test_the_runner_can_put_uv_on_the_volume() -> None:
    wheels = payload_of()["uv"]
    assert wheels
    assert "sha256" in json.dumps(wheels)


# --- secrets -------------------------------------------------------------------------------------


def test_secrets_are_read_from_where_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my token").write_text("from a file\nwith lines\n\n")
    monkeypatch.setenv("PLACE", "from a variable\n")
    payload = payload_of(
        env={"PLAIN": "x"},
        secrets={"A": "env:PLACE", "B": f"file:{tmp_path}/my token"},
    )
    assert payload["env"] == {
        "PLAIN": "x",
        "A": "from a variable\n",
        "B": "from a file\nwith lines\n",
    }


def test_a_home_folder_in_a_reference_is_this_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text("hunter2")
    assert read_reference("file:~/token", "secrets.A") == "hunter2"


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        ({"secrets": {"A": "env:NOT_SET_ANYWHERE"}}, "secrets.A", "NOT_SET_ANYWHERE is not set"),
        ({"secrets": {"A": "file:/nowhere/token"}}, "secrets.A", "/nowhere/token"),
        ({"secrets": {"A": "file:/"}}, "secrets.A", "cannot read /"),
        ({"index": {"credentials": "env:NOT_SET_ANYWHERE"}}, "index.credentials", "is not set"),
        ({"index": {"ca_bundle": "/nowhere/ca.pem"}}, "index.ca_bundle", "/nowhere/ca.pem"),
    ],
)
def test_the_error_of_a_missing_secret_names_field_and_place(
    fields: dict[str, Any], field: str, why: str
) -> None:
    with pytest.raises(RequestError) as caught:
        payload_of(**fields)
    assert caught.value.field == field
    assert why in caught.value.why


def test_a_secret_that_is_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError) as caught:
        payload_of(secrets={"A": f"file:{tmp_path}/key"})
    assert caught.value.field == "secrets.A"


def test_malformed_credentials_are_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PLACE", "hunter2")
    with pytest.raises(RequestError) as caught:
        payload_of(index={"url": "https://i.example/s", "credentials": "env:PLACE"})
    assert "user:password" in caught.value.why
    assert "hunter2" not in str(caught.value)


URL, EXTRA, THIRD = (f"https://{name}.example/simple" for name in ("one", "two", "three"))
OPENED = "https://us%40er:p%2Fa%3Ass%20%25@"


@pytest.mark.parametrize(
    ("index", "requirements", "url", "extra"),
    [
        ({"url": URL}, "", OPENED + "one.example/simple", []),
        ({"url": URL, "extra": [EXTRA]}, "", OPENED + "one.example/simple", [EXTRA]),
        ({"extra": [EXTRA]}, "", None, [OPENED + "two.example/simple"]),
        # The requirements file may be of another user: the credentials are not for its index.
        ({"url": URL}, f"--index-url {THIRD}", THIRD, []),
        ({"url": URL}, f"--extra-index-url {THIRD}", OPENED + "one.example/simple", [THIRD]),
        ({"extra": [EXTRA]}, f"--index-url {THIRD}", THIRD, [OPENED + "two.example/simple"]),
        (
            {"extra": [EXTRA]},
            f"--extra-index-url {THIRD}",
            None,
            [OPENED + "two.example/simple", THIRD],
        ),
        # It is the only index, so they are for it.
        ({}, f"--index-url {THIRD}", OPENED + "three.example/simple", []),
        ({}, f"--extra-index-url {THIRD}", None, [OPENED + "three.example/simple"]),
    ],
)
def test_credentials_go_to_the_index_they_are_for_and_no_other(
    monkeypatch: pytest.MonkeyPatch,
    index: dict[str, Any],
    requirements: str,
    url: str | None,
    extra: list[str],
) -> None:
    monkeypatch.setenv("PLACE", "us@er:p/a:ss %")
    payload = payload_of(index={**index, "credentials": "env:PLACE"}, requirements=requirements)
    assert payload["index"]["url"] == url
    assert payload["index"]["extra"] == extra
    assert "p/a:ss %" in payload["index"]["secrets"]
    del payload["index"]
    assert "p/a:ss" not in json.dumps(payload)
    assert "p%2Fa" not in json.dumps(payload)


def test_without_credentials_nothing_is_added_or_masked() -> None:
    payload = payload_of(index={"url": URL, "extra": [EXTRA], "proxy": "http://p.example:1"})
    assert payload["index"] == {
        "url": URL,
        "extra": [EXTRA],
        "proxy": "http://p.example:1",
        "ca_bundle": None,
        "authorities": [],
        "proxies": {},
        "secrets": [],
    }


def test_the_payload_holds_the_text_of_a_ca_bundle(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    payload = payload_of(index={"ca_bundle": f"{tmp_path}/ca.pem"})
    assert payload["index"]["ca_bundle"] == "-----BEGIN CERTIFICATE-----\n"


def test_nothing_secret_is_in_the_spec_or_the_hash_that_stay_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = {
        "secrets": {"TOKEN": "env:PLACE"},
        "index": {"url": URL, "credentials": "env:CREDENTIALS"},
    }
    monkeypatch.setenv("PLACE", "hunter2")
    monkeypatch.setenv("CREDENTIALS", "user:hunter3")
    spec = spec_of(**fields)
    before = request_hash(spec)
    inside = gzip.decompress(packed(spec)).decode()
    assert "hunter2" in inside and "hunter3" in inside
    assert "hunter" not in spec.model_dump_json()
    monkeypatch.setenv("PLACE", "another")
    monkeypatch.setenv("CREDENTIALS", "user:another")
    assert request_hash(spec) == before


def test_copies_of_a_project_have_a_name_of_their_own_unless_it_is_too_large() -> None:
    def copy(root: str, size: int) -> object:
        project = {"digest": "0" * 64, "root": root, "bytes": size}
        found: object = payload_of(project=project)["project"]["copy"]
        return found

    assert copy("/a", 1) == copy("/a", MAX_COPY)
    assert copy("/a", 1) != copy("/b", 1)
    assert copy("/a", MAX_COPY + 1) is None
