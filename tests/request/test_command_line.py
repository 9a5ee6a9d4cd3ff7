"""The command line for a request: run as printed, it makes the same request."""

from __future__ import annotations

import io
import json
import shlex
import string
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoke.cli.commands.run import command as run
from stoke.cli.options import request_from
from stoke.config.defaults import with_defaults
from stoke.config.loader import load_config
from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.request.command_line import CommandLine, command_line
from stoke.request.fields import FIELDS, set_fields
from stoke.request.sources import request_from_json
from stoke.request.spec import JobSpec, make_spec
from stoke.text.sanitize import looks_secret

HASH = "0" * 64
NIX = {"url": "https://nix.example/n.tar.gz", "sha256": "sha256-" + "A" * 43 + "="}
KEY = "cache.example-1:" + "A" * 43 + "="

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.from_regex(r"[A-Z][A-Z_]{0,8}", fullmatch=True).filter(
    lambda name: not looks_secret(name)
)
addresses = st.sampled_from(
    ["https://i.example/simple", "http://h:81/a%20b", "https://${USER_X}:${PASS_X}@h.example/x'y"]
)
references = st.sampled_from(["env:LOGIN", "file:/a b/'c", "file:/x=y"])
requirements = st.sampled_from(
    ["numpy", "pandas[aws]>=2, <3", "a.b~=1.0; python_version < '3.13' and sys_platform == \"linux\"",
     "pkg @ https://h.example/p-1.zip ; os_name == 'posix'", "x @ git+ssh://git@h.example/x.git"]
)  # fmt: skip
systems = st.lists(st.sampled_from(["gcc", "python3Packages.numpy"]), unique=True)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


@st.composite
def requests(draw: st.DrawFn) -> JobSpec:
    fields: dict[str, Any] = {
        **draw(
            st.fixed_dictionaries(
                {
                    "code": st.sampled_from(
                        ["print(1)\n", "x = '''\r\n$(touch /x)'''\n", "# \xe9\n1"]
                    )
                }
            )
            | st.fixed_dictionaries({"module": st.sampled_from(["http.server", "my-tool", "\xe9"])})
            | st.fixed_dictionaries({"exec": st.sampled_from(["pytest", "py.test", "c++filt-3.1"])})
        ),
        "args": draw(st.lists(words, max_size=3) | st.just(["--", "-b", "--name"])),
        "python": draw(maybe(st.sampled_from(["3.12", " >=3.11,<3.14"]))),
        "env": draw(st.dictionaries(names, words, max_size=3)),
        "secrets": draw(st.dictionaries(names, references | st.just("secret:a/b"), max_size=2)),
        "timeout": draw(maybe(st.floats(1e-9, 3e7))),
        "cpu": draw(maybe(st.floats(1e-9, 4096))),
        "memory": draw(maybe(st.integers(4 << 20, 1 << 50) | st.just(3 << 30))),
        "shm_size": draw(maybe(st.integers(4 << 20, 1 << 50))),
        "image": draw(maybe(st.sampled_from(["python:3.13", "h:5000/a@sha256:0"]))),
        "scope": draw(st.sampled_from(["default", "team-a"])),
        "use_cache": draw(st.booleans()),
        "system": draw(systems),
        "index": {
            "url": draw(maybe(addresses)),
            "extra": draw(st.lists(addresses, max_size=2)),
            "credentials": draw(maybe(references)),
            "proxy": draw(maybe(st.sampled_from(["http://p.example:3128"]))),
            "ca_bundle": draw(maybe(words.filter(bool))),
        },
    }
    if draw(st.booleans()):
        fields |= {"locked": True, "requirements": f"six==1.17.0 --hash=sha256:{HASH}\n"}
    else:
        fields |= {
            "dependencies": draw(st.lists(requirements, max_size=3)),
            "requirements": draw(st.sampled_from(["", "attrs\n", "# note\r\nsix>=1 \\\r\n  ,<2"])),
            "constraints": draw(st.sampled_from(["", "urllib3<2", "# x\na<1\n\nb<2\n"])),
        }
    if fields["system"]:
        fields["nix"] = draw(
            st.sampled_from(
                [NIX, {"substituters": ["https://c.example/a'b"], "trusted_keys": [KEY]}]
            )
        )
    fields["env"] = {
        name: text for name, text in fields["env"].items() if name not in fields["secrets"]
    }
    return make_spec({name: value for name, value in fields.items() if value is not None})


@pytest.fixture(autouse=True)
def no_settings_of_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "1")


def performed(line: CommandLine, folder: Path) -> JobSpec:
    """The request that the line makes in a folder with the files that it reads."""
    for name, text in line.inputs.items():
        (folder / name).write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        words_given = shlex.split(line.text)
        while "=" in words_given[0]:
            name, _, value = words_given.pop(0).partition("=")
            monkeypatch.setenv(name, value)
        assert words_given.pop(0) == "stoke"
        config = load_config()
        if words_given.pop(0) == "submit":
            asked = request_from_json(Path(words_given[-1]).read_bytes(), words_given[-1])
            return with_defaults(asked, config)
        code = io.BytesIO(line.inputs.get("-", "").encode())
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=code))
        options = run.make_context("run", words_given).params
        for name in ("backend", "detach", "as_json", "quiet"):
            options.pop(name)
        return request_from(config, **options).spec


@given(spec=requests())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_line_makes_the_same_request(tmp_path: Path, spec: JobSpec) -> None:
    # As the history has it: with what it took in when it was submitted.
    stored = with_defaults(spec, Config())
    made = performed(command_line(stored, "docker", "fit"), tmp_path)
    assert made.model_dump(mode="json") == stored.model_dump(mode="json")


def test_a_masked_value_is_in_no_line_and_is_refused(tmp_path: Path) -> None:
    line = command_line(make_spec({"code": "1", "env": {"API_TOKEN": "hunter2"}}), "local", "x")
    assert "hunter2" not in line.text
    with pytest.raises(RequestError, match="give its value again"):
        performed(line, tmp_path)


def test_recorded_settings_of_uv_are_submitted_as_json(tmp_path: Path) -> None:
    uv = {"resolution": {"value": "lowest", "source": "UV_RESOLUTION"}}
    spec = with_defaults(make_spec({"code": "1", "dependencies": ["six"], "uv": uv}), Config())
    line = command_line(spec, "local", "x y")
    assert line.text == "stoke submit -b local --name 'x y' request.json"
    assert performed(line, tmp_path) == spec


@pytest.mark.parametrize("letter", [letter for letter in string.punctuation if letter not in "/"])
def test_no_character_of_a_value_reaches_the_shell(tmp_path: Path, letter: str) -> None:
    fields = {"code": "1", "args": [f"{letter}a", letter], "env": {"A": f"b{letter} {letter}"}}
    spec = with_defaults(make_spec(fields), Config())
    assert performed(command_line(spec, "docker", f"n{letter}"), tmp_path) == spec


ALL: dict[str, Any] = {
    "code": "print(1)\n",
    "args": ["a b"],
    "dependencies": ["numpy>=2"],
    "requirements": "six\n",
    "constraints": "urllib3<2\n",
    "system": ["gcc"],
    "python": "3.12",
    "env": {"A": "b"},
    "secrets": {"B": "env:C"},
    "mounts": ["/some folder:/data", "/other:/out:rw"],
    "results": ["out/*.csv", "log"],
    "index": {
        "url": "https://i.example/simple",
        "extra": ["https://e.example/s"],
        "credentials": "env:LOGIN",
        "proxy": "http://p.example:3128",
        "ca_bundle": "/etc/ca.pem",
    },
    "nix": NIX,
    "timeout": 90,
    "cpu": 0.5,
    "memory": 1 << 30,
    "shm_size": 1500 << 20,
    "cpu_request": 0.25,
    "memory_request": 512 << 20,
    "gpu": 1,
    "workspace": "notes",
    "profile": "batch",
    "labels": {"team": "vision"},
    "annotations": {"why": "a b"},
    "image": "python:3.13",
    "scope": "team-a",
    "use_cache": False,
    "hold": 600,
    "retries": 3,
    "retry_exit": [1, 75],
    "notify": True,
}
LOCKED: dict[str, Any] = {
    "code": "1",
    "requirements": f"six==1.17.0 --hash=sha256:{HASH}\n",
    "locked": True,
}


def test_every_field_but_recorded_ones_is_in_the_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKE_NOTIFY__COMMAND", '["true"]')
    config = load_config()
    set_here = {"uv", "project", "shell"}
    for fields in (ALL, LOCKED, {"module": "http.server"}, {"exec": "pytest"}):
        asked = make_spec(fields)
        set_here |= {field.name for field, _ in set_fields(asked)}
        spec = with_defaults(asked, config)
        assert performed(command_line(spec, "docker", "x"), tmp_path) == spec
    assert set_here == {field.name for field in FIELDS}


def test_the_line_of_a_shell_names_no_code() -> None:
    line = command_line(make_spec({"shell": True, "memory": "1g"}), "docker", "x")
    assert line.text == "stoke shell -b docker --name x --memory 1g --scope default"
    assert line.inputs == {}


def test_the_line_is_short_where_values_are_round() -> None:
    line = command_line(make_spec(ALL), "docker", "fit")
    nix = f"STOKE_NIX='{json.dumps(NIX)}'"
    assert line.text == (
        "STOKE_INDEX__PROXY=http://p.example:3128 STOKE_INDEX__CA_BUNDLE=/etc/ca.pem "
        f"{nix} stoke run -b docker --name fit -w 'numpy>=2' -r requirements.txt -s gcc "
        "--constraints constraints.txt --python 3.12 --env A=b --secret B=env:C "
        "--mount '/some folder:/data' --mount /other:/out:rw "
        "--workspace notes --results 'out/*.csv' --results log "
        "--index https://i.example/simple --extra-index https://e.example/s "
        "--index-credentials env:LOGIN --timeout 90s --cpu 0.5 --memory 1g --shm-size 1500m "
        "--cpu-request 0.25 --memory-request 512m --gpu 1 --profile batch --label team=vision "
        "--annotation 'why=a b' "
        "--hold=600s --retries 3 --retry-exit 1,75 --notify --image python:3.13 "
        "--scope team-a --no-cache - -- 'a b'"
    )
