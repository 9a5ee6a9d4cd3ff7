"""Render a request's uv settings for uv inside the job: configuration, variables, option lines.

Logins are read here, from the sources that the request names, and reach uv as environment variables.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from stoke.errors import RequestError
from stoke.files.untrusted import read_toml
from stoke.request.requirement import canonical_name
from stoke.request.spec import JobSpec
from stoke.request.surroundings import login_variables
from stoke.request.uv_settings import CONNECTION, RESULT
from stoke.request.variables import VARIABLE, fill_in
from stoke.text.urls import login_of, secrets_of, split_login

if TYPE_CHECKING:
    from stoke.remote.schema import UvSettingsPayload

_LOGIN = re.compile(r"://([^/\s@]*)@")
# A lockfile is complete: these settings decide its content and must not change its installation.
_LOCK_ONLY = {
    "constraint-dependencies",
    "exclude-dependencies",
    "no-deps",
    "override-dependencies",
}
# The option lines of a lockfile hold these settings; see `_option_lines`.
_IN_LINES = {
    "find-links",
    "index",
    "no-binary",
    "no-binary-package",
    "no-build",
    "no-build-package",
    "no-index",
}
# These settings are not keys of a configuration file.
_ELSEWHERE = {"find-links", "git-lfs", "index", "no-deps", "sources"}


@dataclass
class UvConfig:
    """Everything that `stoke.remote.runner` needs to run uv for one request."""

    lock: str
    """The configuration file for resolving."""
    install: str
    """The configuration file for installing, and for building the packages that are installed."""
    project: str | None
    """A pyproject.toml with the packages that `sources` can apply to; None without sources."""
    unnamed: list[str]
    """The requirements that `project` cannot hold: addresses without a name."""
    lines: list[str]
    """Options for the requirements file, when resolving and when installing."""
    header: list[str]
    """The option lines of the lockfile: all that its installation needs, without logins."""
    build: list[Any]
    """The settings outside the lockfile that can change an environment built from it."""
    indexes: dict[str, str] = field(default_factory=dict)
    """Address without login -> name, for each index that the request uses."""
    several: bool = False
    """Whether files can come from more than one index."""
    strategy: str | None = None
    """The index strategy for a complete lockfile that does not name the index of each file."""
    environment: dict[str, str] = field(default_factory=dict)
    """Variables for uv's processes; some hold secrets."""
    wanted: list[str] = field(default_factory=list)
    """Variables with logins that were not filled in."""
    secrets: list[str] = field(default_factory=list)
    """Texts that must not be shown."""
    default: dict[str, Any] | None = None
    """The default index among uv's settings."""

    def for_runner(self) -> UvSettingsPayload:
        return {
            "lock": self.lock,
            "install": self.install,
            "project": self.project,
            "unnamed": self.unnamed,
            "lines": self.lines,
            "header": self.header,
            "build": self.build,
            "indexes": self.indexes,
            "several": self.several,
            "strategy": self.strategy,
            "environment": self.environment,
        }


def uv_config(
    spec: JobSpec, *, with_secrets: bool = True, environ: Mapping[str, str] = os.environ
) -> UvConfig:
    """Return the configuration for `spec`. Raises `RequestError` if a login is not where it should be.

    Without `with_secrets` no login is read; `wanted` then names the variables that need a value.
    """
    settings = {name: setting.value for name, setting in (spec.uv or {}).items()}
    parsed = spec.parsed_requirements()
    taken = _named(settings.get("index", []))
    taken_default = next((one for one in taken if one.get("default")), None)
    default = parsed.index or spec.index.url or (taken_default["url"] if taken_default else None)
    extra = [
        *spec.index.extra,
        *parsed.extra_indexes,
        *(one["url"] for one in taken if not one.get("default") and not one.get("explicit")),
        *(one["url"] for one in taken if one.get("explicit")),
    ]
    lines = [option for option in parsed.options if option != "--pre"]
    lines += [line for line in _option_lines(settings) if line not in lines]
    names = {one["url"]: one["name"] for one in taken}
    indexes = {}
    for number, url in enumerate(dict.fromkeys([*extra, *([default] if default else [])])):
        address = split_login(url)[1]
        indexes[address] = names.get(url) or f"stoke-own-{number}"
    installing = {name: value for name, value in settings.items() if name not in _LOCK_ONLY}
    config = UvConfig(
        lock=_file(settings, taken),
        install=_file(installing, taken),
        project=_project(spec, settings["sources"], taken) if "sources" in settings else None,
        unnamed=[text for text in _requirements(spec) if not _has_name(text)],
        lines=[line for line in lines if line.startswith("--find-links") or line in parsed.options],
        header=[
            *([f"--index-url {default}"] if default else []),
            *(f"--extra-index-url {url}" for url in dict.fromkeys(extra)),
            *lines,
        ],
        build=sorted(
            [name, value]
            for name, value in installing.items()
            if name in RESULT and name not in _IN_LINES and name != "sources"
        )
        + [one["url"] for one in taken if one.get("explicit")],
        indexes=indexes,
        several=bool(extra),
        default=taken_default,
        strategy="unsafe-first-match" if extra and "index-strategy" not in settings else None,
    )
    if settings.get("git-lfs"):
        config.environment["UV_GIT_LFS"] = "1"
    _read_logins(config, spec, settings, taken, environ if with_secrets else None)
    return config


def _named(indexes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the indexes with a name each: uv looks up logins by name."""
    used = {index.get("name") for index in indexes}
    named = []
    for number, index in enumerate(indexes):
        name = index.get("name") or next(
            name
            for name in (f"stoke-{number}{'x' * more}" for more in range(99))
            if name not in used
        )
        named.append({**index, "name": name})
    return named


def _option_lines(settings: Mapping[str, Any]) -> Iterator[str]:
    if settings.get("no-index"):
        yield "--no-index"
    for url in settings.get("find-links", ()):
        yield f"--find-links {url}"
    for option, name in (("--no-binary", "no-binary"), ("--only-binary", "no-build")):
        if settings.get(name):
            yield f"{option} :all:"
        for package in settings.get(f"{name}-package", ()):
            yield f"{option} {package}"


# --- files ---------------------------------------------------------------------------------------


def _file(settings: Mapping[str, Any], indexes: list[dict[str, Any]]) -> str:
    """Return the text of a uv.toml."""
    lines = [
        f"{name} = {_toml(value)}"
        for name, value in sorted(settings.items())
        if (name in RESULT or name in CONNECTION) and name not in _ELSEWHERE
    ]
    lines += _index_tables(indexes, "index")
    pip = {name: settings[name] for name in ("no-deps", "torch-backend") if name in settings}
    if pip:
        lines += ["[pip]", *(f"{name} = {_toml(value)}" for name, value in pip.items())]
    return "".join(f"{line}\n" for line in lines)


def _index_tables(indexes: list[dict[str, Any]], table: str) -> Iterator[str]:
    for index in indexes:
        yield f"[[{table}]]"
        for key, value in index.items():
            if key != "credentials":
                value = split_login(value)[1] if key == "url" else value
                yield f"{key} = {_toml(value)}"


def _project(spec: JobSpec, sources: Mapping[str, Any], indexes: list[dict[str, Any]]) -> str:
    used = {
        source.get("index")
        for some in sources.values()
        for source in (some if isinstance(some, list) else [some])
    }
    lines = [
        "[project]",
        'name = "stoke-request"',
        'version = "0"',
        f"dependencies = {_toml([text for text in _requirements(spec) if _has_name(text)])}",
        *_index_tables([one for one in indexes if one["name"] in used], "tool.uv.index"),
        "[tool.uv.sources]",
        *(f"{_toml(package)} = {_toml(source)}" for package, source in sources.items()),
    ]
    return "".join(f"{line}\n" for line in lines)


def _requirements(spec: JobSpec) -> list[str]:
    return [*spec.dependencies, *(it.text for it in spec.parsed_requirements().requirements)]


def _has_name(text: str) -> bool:
    return "://" not in text.partition("@")[0]


def _toml(value: Any) -> str:
    if isinstance(value, str):
        # JSON strings are TOML strings, except for the character U+007F.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        pairs = (f"{_toml(str(key))} = {_toml(one)}" for key, one in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    return str(value)


# --- logins --------------------------------------------------------------------------------------


def _read_logins(
    config: UvConfig,
    spec: JobSpec,
    settings: Mapping[str, Any],
    indexes: list[dict[str, Any]],
    environ: Mapping[str, str] | None,
) -> None:
    for index in indexes:
        named = split_login(index["url"])[0]
        if not named and "credentials" not in index:
            continue
        user_variable, password_variable = login_variables(index["name"])
        if environ is None:
            config.wanted += [user_variable, password_variable]
            continue
        if named:
            user, password = login_of(fill_in(named, "uv.index", environ))
        else:
            user, password = _login(index, environ)
        config.environment |= {user_variable: user, password_variable: password}
        config.secrets += secrets_of(user, password)
    texts: Iterable[str] = [
        *_requirements(spec),
        *(entry.text for entry in spec.parsed_constraints()),
        *config.lines,
        *(text for name in settings if name.endswith("-dependencies") for text in settings[name]),
    ]
    for text in texts:
        for login in _LOGIN.findall(text):
            for name in VARIABLE.findall(login):
                if environ is None:
                    config.wanted.append(name)
                else:
                    value = fill_in(f"${{{name}}}", "requirements", environ)
                    config.environment[name] = value
                    config.secrets += secrets_of(*value.partition(":")[::2])
    config.wanted = list(dict.fromkeys(config.wanted))


def _login(index: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return (user, password) from the variable or file that has the login of an index."""
    kind, _, where = index["credentials"].partition(":")
    user_variable, password_variable = login_variables(index["name"])
    if kind == "env" and where in (user_variable, password_variable):
        if where in environ:
            return environ.get(user_variable, ""), environ.get(password_variable, "")
        addresses: Iterable[str] = ()
    elif kind == "env":
        addresses = (word for part in environ.get(where, "").split() for word in _addresses(part))
    else:
        try:
            addresses = _texts(read_toml(Path(where)))
        except (OSError, ValueError):
            addresses = ()
    for address in addresses:
        login, url = split_login(address)
        if login and url == index["url"]:
            return login_of(login)
    raise RequestError(
        "uv.index",
        f"the login for {urlsplit(index['url']).netloc} is no longer in {where}",
        "set it again, or submit the request again",
    )


def _addresses(word: str) -> tuple[str, ...]:
    """Return an entry of UV_INDEX with and without the `name=` in front."""
    return word, word.partition("=")[2]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _texts(one)


def origins(lock: str) -> dict[str, str]:
    """Return canonical name -> index of its file, from the `# from` comments that uv writes."""
    found = re.findall(r"(?m)^([^\s#-](?:.*\\\r?\n)*.*)\r?\n[ \t]+# from (\S+)[ \t]*$", lock)
    return {canonical_name(entry): url for entry, url in found}
