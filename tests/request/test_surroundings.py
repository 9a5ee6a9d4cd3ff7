"""What a request takes in from the machine that submits it: uv's settings and `${NAME}`."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from stoke.config.defaults import with_changes
from stoke.delivery.uv_config import uv_config
from stoke.errors import RequestError
from stoke.request.sources import request_from_options
from stoke.request.spec import JobSpec, make_spec
from stoke.request.surroundings import take_in
from stoke.request.uv_settings import IGNORED, KINDS, SPELLINGS

SHA = "sha256:" + "0" * 64


def taken(environ: dict[str, str] | None = None, code: str = "pass", **fields: Any) -> JobSpec:
    fields.setdefault("dependencies", ["alpha"])
    spec = request_from_options(code=code, **fields)
    changes = take_in(spec, {"XDG_CONFIG_HOME": "/nowhere", **(environ or {})})
    uv = {"uv": changes.pop("uv")} if "uv" in changes else {}
    taken = with_changes(spec, **changes).model_copy(update=uv)
    assert make_spec(taken.model_dump(mode="json", exclude_unset=True)) == taken
    return taken


def settings(environ: dict[str, str] | None = None, code: str = "pass") -> dict[str, Any]:
    return {name: one.value for name, one in (taken(environ, code).uv or {}).items()}


def script(*lines: str) -> str:
    block = ["/// script", 'dependencies = ["alpha"]', "[tool.uv]", *lines, "///"]
    return "\n".join(f"# {line}" for line in block) + "\npass"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("variable", "value", "name", "recorded"),
    [
        ("UV_INDEX_URL", "https://a/s", "index", [{"url": "https://a/s", "default": True}]),
        ("UV_DEFAULT_INDEX", "https://a/s", "index", [{"url": "https://a/s", "default": True}]),
        ("UV_EXTRA_INDEX_URL", "https://a/s", "index", [{"url": "https://a/s"}]),
        ("UV_INDEX", "c=https://a/s", "index", [{"name": "c", "url": "https://a/s"}]),
        ("UV_FIND_LINKS", "https://a/x,https://a/y", "find-links", ["https://a/x", "https://a/y"]),
        ("UV_INDEX_STRATEGY", "unsafe-best-match", "index-strategy", "unsafe-best-match"),
        ("UV_PRERELEASE", "allow", "prerelease", "allow"),
        ("UV_RESOLUTION", "lowest", "resolution", "lowest"),
        ("UV_FORK_STRATEGY", "fewest", "fork-strategy", "fewest"),
        ("UV_EXCLUDE_NEWER", "2024-01-01", "exclude-newer", "2024-01-01"),
        ("UV_NO_BINARY", "1", "no-binary", True),
        ("UV_NO_BINARY_PACKAGE", "a b", "no-binary-package", ["a", "b"]),
        ("UV_NO_BUILD", "true", "no-build", True),
        ("UV_NO_BUILD_ISOLATION", "0", "no-build-isolation", False),
        ("UV_NO_SOURCES", "1", "no-sources", True),
        ("UV_OFFLINE", "1", "offline", True),
        ("UV_TORCH_BACKEND", "cpu", "torch-backend", "cpu"),
        ("UV_KEYRING_PROVIDER", "subprocess", "keyring-provider", "subprocess"),
        ("UV_INSECURE_HOST", "a b", "allow-insecure-host", ["a", "b"]),
    ],
)
def test_variables(variable: str, value: str, name: str, recorded: Any) -> None:
    spec = taken({variable: value})
    assert spec.uv is not None and list(spec.uv) == [name]
    assert (spec.uv[name].value, spec.uv[name].source) == (recorded, variable)


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("UV_CONSTRAINT", "constraint-dependencies"),
        ("UV_OVERRIDE", "override-dependencies"),
        ("UV_BUILD_CONSTRAINT", "build-constraint-dependencies"),
        ("UV_EXCLUDE", "exclude-dependencies"),
    ],
)
def test_files_that_variables_name(variable: str, name: str, tmp_path: Path) -> None:
    file = write(tmp_path / "c.txt", "# a comment\nalpha<2\nbeta\n")
    assert settings({variable: str(file)}) == {name: ["alpha<2", "beta"]}
    with pytest.raises(RequestError, match=f"{variable}: /nowhere/c.txt: cannot be read"):
        taken({variable: "/nowhere/c.txt"})


def test_the_order_of_the_sources(tmp_path: Path) -> None:
    user = write(
        tmp_path / "user/uv/uv.toml",
        'resolution = "lowest"\nprerelease = "allow"\nexclude-newer = "2020-01-01"\n'
        'no-binary-package = ["b"]\n[[index]]\nurl = "https://user/s"\n'
        '[pip]\nresolution = "lowest-direct"\nextra-index-url = ["https://pip/s"]\n',
    )
    write(tmp_path / "system/uv/uv.toml", 'prerelease = "disallow"\nfork-strategy = "fewest"\n')
    environ = {
        "XDG_CONFIG_HOME": str(tmp_path / "user"),
        "XDG_CONFIG_DIRS": str(tmp_path / "system"),
        "UV_EXCLUDE_NEWER": "2024-01-01",
        "UV_INDEX": "https://variable/s",
    }
    code = script(
        'exclude-newer = "2022-01-01"', 'no-binary-package = ["a"]', "index-url = 'https://code/s'"
    )
    found = settings(environ, code)
    assert found == {
        "exclude-newer": "2024-01-01",
        "fork-strategy": "fewest",
        "index": [
            {"url": "https://variable/s"},
            {"url": "https://code/s", "default": True},
            {"url": "https://pip/s"},
            {"url": "https://user/s"},
        ],
        "no-binary-package": ["a", "b"],
        "prerelease": "allow",
        "resolution": "lowest-direct",
    }
    assert "prerelease" not in settings({**environ, "UV_NO_CONFIG": "1"})
    without_system = settings({**environ, "UV_NO_SYSTEM_CONFIG": "1"})
    assert "fork-strategy" not in without_system and "prerelease" in without_system
    own = write(tmp_path / "own.toml", 'resolution = "highest"\n')
    assert settings({**environ, "UV_CONFIG_FILE": str(own)})["resolution"] == "highest"
    sources = taken(environ, code).uv or {}
    assert sources["prerelease"].source.startswith(str(user))
    assert sources["no-binary-package"].source == f"[tool.uv] of the script, {user}"


def test_pip_lists_of_packages(tmp_path: Path) -> None:
    text = '[pip]\nno-binary = ["a", "b"]\nonly-binary = [":all:"]\n'
    write(tmp_path / "uv/uv.toml", text)
    assert settings({"XDG_CONFIG_HOME": str(tmp_path)}) == {
        "no-binary-package": ["a", "b"],
        "no-build": True,
        "no-build-package": [],
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("frobnicate = 1", "frobnicate is not a setting of uv that is known here"),
        ("prerelease = 1", "prerelease must be text"),
        ("no-deps = 'yes'", "no-deps must be true or false"),
        ("find-links = ['./wheels']", "does not travel"),
        ("index-url = 'file:///srv/index'", "does not travel"),
        ("index-url = 'https://a:b@h/s'", "holds a password"),
        ("constraint-dependencies = ['a @ file:///x.whl']", "does not travel"),
        ("constraint-dependencies = ['a @ https://u:p@h/x.whl']", "password"),
        ("torch-backend = 'auto'", "depends on the machine"),
        ("sources = { alpha = { path = '../alpha' } }", "path source for alpha.* does not travel"),
        ("sources = { alpha = { workspace = true } }", "workspace source for alpha"),
        ("sources = { alpha = { git = 'https://u:p@h/x' } }", "holds a password"),
        ("sources = { alpha = { git = 'https://${T}@h/x' } }", "write the variable into the depen"),
        ("sources = { alpha = { index = 'corp' } }", "no index of that name is set"),
        ("sources = { beta = { url = 'https://h/b.whl' } }", "beta, which is not one of the"),
        ("index = [{ name = 'x' }]", "has an index without a url"),
        ("index = [{ url = 'https://h/s', credentials = 'env:HOME' }]", "which is not known here"),
        ("index = [{ url = 'https://h/s', nonsense = 1 }]", "index with 'nonsense'"),
    ],
)
def test_a_script_is_refused_with_the_setting_and_the_reason(line: str, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        taken(code=script(line))
    assert "script" in caught.value.what and "u:p" not in caught.value.what


def test_a_file_is_refused_by_its_name(tmp_path: Path) -> None:
    file = write(tmp_path / "uv/uv.toml", 'find-links = ["/srv/wheels"]\n')
    with pytest.raises(RequestError, match=f"{re.escape(str(file))}: find-links names") as caught:
        taken({"XDG_CONFIG_HOME": str(tmp_path)})
    assert "UV_NO_CONFIG=1" in (caught.value.hint or "")
    assert settings({"XDG_CONFIG_HOME": str(tmp_path), "UV_NO_CONFIG": "1"}) == {}


def test_settings_that_change_nothing_are_ignored() -> None:
    assert settings(code=script("package = false", "cache-dir = '/x'", "[tool.uv.workspace]")) == {}


def test_a_request_takes_in_once() -> None:
    recorded = taken({"UV_PRERELEASE": "allow"})
    assert take_in(recorded, {"UV_PRERELEASE": "disallow"}) == {}
    again = make_spec(recorded.model_dump(mode="json"))
    assert again == recorded and take_in(again, {"UV_RESOLUTION": "lowest"}) == {}
    nothing = taken({})
    assert nothing.uv == {} and take_in(nothing, {"UV_PRERELEASE": "allow"}) == {}
    assert take_in(make_spec({"code": "1"}), {"UV_PRERELEASE": "allow"}) == {}


def test_variables_in_settings() -> None:
    environ = {
        "UV_FIND_LINKS": "https://h/${STAGE}/links",
        "UV_INDEX": "https://${TOKEN}@h/${STAGE}/simple",
        "STAGE": "dev",
    }
    assert settings(environ) == {
        "find-links": ["https://h/dev/links"],
        "index": [{"url": "https://${TOKEN}@h/dev/simple"}],
    }
    with pytest.raises(RequestError, match="UV_FIND_LINKS: find-links holds a password"):
        taken({"UV_FIND_LINKS": "https://${STAGE}/links", "STAGE": "u:p@h"})


def test_variables_in_requirements() -> None:
    text = "# ${NOT_SET}\nalpha @ https://h/${STAGE}/alpha-1.0.zip # ${NOT_SET}\n"
    spec = taken(
        {"STAGE": "dev"}, dependencies=["beta @ https://h/${STAGE}.zip"], requirements=text
    )
    assert spec.requirements == text.replace("${STAGE}", "dev")
    assert spec.dependencies == ("beta @ https://h/dev.zip",)
    with pytest.raises(RequestError, match="requirements line 2: names the variable STAGE"):
        taken({}, requirements=text)
    with pytest.raises(RequestError, match="password"):
        taken({"STAGE": "u:p@evil"}, requirements="a @ https://${STAGE}/a.zip\n")


@pytest.mark.parametrize("login", ["${TOKEN}", "${USER}:${TOKEN}", "user:${TOKEN}", "${TOKEN}:"])
def test_a_login_stays_a_name(login: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"alpha @ git+https://{login}@h/a.git\n--extra-index-url https://{login}@h/simple\n"
    spec = taken({}, requirements=text)
    assert spec.requirements == text
    with pytest.raises(RequestError, match=r"names the variable (TOKEN|USER), which is not set"):
        uv_config(spec, environ={})
    config = uv_config(spec, environ={"TOKEN": "secret+1", "USER": "ada"})
    assert config.environment["TOKEN"] == "secret+1"
    assert "secret+1" in config.secrets and "secret%2B1" in config.secrets
    assert "secret" not in config.lock + config.install + "".join(config.header)
    assert "TOKEN" in uv_config(spec, with_secrets=False, environ={}).wanted


def test_where_the_login_of_an_index_is(tmp_path: Path) -> None:
    url, login = "https://h/simple", "https://ada:se%2Fhush@h/simple"
    file = write(tmp_path / "uv/uv.toml", f'index-url = "{login}"\n')
    for environ, reference in (
        ({"UV_INDEX_URL": login}, "env:UV_INDEX_URL"),
        ({"UV_INDEX": f"https://x/s corp={login}"}, "env:UV_INDEX"),
        ({"XDG_CONFIG_HOME": str(tmp_path)}, f"file:{file}"),
        (
            {
                "UV_INDEX": f"corp={url}",
                "UV_INDEX_CORP_USERNAME": "ada",
                "UV_INDEX_CORP_PASSWORD": "se/hush",
            },
            "env:UV_INDEX_CORP_USERNAME",
        ),
    ):
        spec = taken(environ)
        assert "hush" not in spec.model_dump_json()
        index = (spec.uv or {})["index"].value[-1]
        assert (index["url"], index["credentials"]) == (url, reference)
        config = uv_config(spec, environ=environ)
        assert {"ada", "se/hush"} <= set(config.environment.values())
        assert "hush" not in config.lock + config.install + "".join(config.header)
        if reference.startswith("env:"):
            with pytest.raises(RequestError, match=r"login for h is no longer in UV_INDEX"):
                uv_config(spec, environ={})


def known_to_uv(table: str) -> set[str]:
    """The names that uv itself lists when it meets one that it does not know."""
    asked = subprocess.run(
        [find_uv_bin(), "pip", "compile", "--config-file", "/dev/stdin", "/dev/null"],
        input=f"{table}\nno-such-setting = 1\n",
        capture_output=True,
        text=True,
    )
    names = re.findall(r"`([a-z-]+)`", asked.stderr.partition("expected one of")[2])
    assert len(names) > 30, asked.stderr
    return set(names)


@pytest.mark.parametrize("table", ["", "[pip]"])
def test_each_setting_of_uv_is_known(table: str) -> None:
    unknown = known_to_uv(table) - set(KINDS) - set(SPELLINGS) - IGNORED - {"pip"}
    assert unknown == set()


def test_uv_reads_the_configuration_written_for_it(tmp_path: Path) -> None:
    """uv accepts each recorded setting in the files that the runner writes."""
    code = script(
        *(
            # With hashes for builds, the constraints below would need some.
            f"{name} = {'false' if name == 'require-build-hashes' else 'true'}"
            for name, kind in KINDS.items()
            if kind == "flag" and name != "git-lfs"
        ),
        *(f"{name} = ['a']" for name, kind in KINDS.items() if kind in ("texts", "requirements")),
        "config-settings = { k = 'v', l = ['x', \"y\\u007f\"] }",
        "config-settings-package = { alpha = { k = 'v' } }",
        "exclude-newer-package = { alpha = '2024-01-01' }",
        "extra-build-dependencies = { alpha = ['setuptools'] }",
        "extra-build-variables = { alpha = { A = 'b' } }",
        "dependency-metadata = [{ name = 'alpha', version = '1.0', requires-dist = [] }]",
        "prerelease-package = { alpha = 'allow' }",
        "exclude-newer = 2024-01-01T00:00:00Z",
        "prerelease = 'allow'",
        "resolution = 'lowest'",
        "fork-strategy = 'fewest'",
        "index-strategy = 'unsafe-best-match'",
        "keyring-provider = 'disabled'",
        "torch-backend = 'cpu'",
        "find-links = ['https://h/links']",
        "http-proxy = 'http://h:1'",
        "https-proxy = 'http://h:1'",
        "[[tool.uv.index]]",
        "name = 'corp'",
        "url = 'https://h/s'",
        "explicit = true",
        "[tool.uv.sources]",
        "alpha = { index = 'corp' }",
    )
    spec = taken(code=code)
    left = set(KINDS) - set(spec.uv or {}) - {"git-lfs"}
    assert left == set()
    config = uv_config(spec, environ={})
    for text in (config.lock, config.install):
        file = write(tmp_path / "uv.toml", text)
        command = [find_uv_bin(), "pip", "compile", "--config-file", str(file), "/dev/null"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + text
