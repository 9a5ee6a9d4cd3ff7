"""Record in a request what it takes from the machine that submits it.

These are the values of `${NAME}` in its requirements, and uv's settings. Both are recorded once, on
submission, so that they decide on every backend, in every phase and in the cache keys, and a request
that is run again needs none of them. The sources of settings, strongest first, as uv orders them: UV_*
variables, the `[tool.uv]` table of the script or of the project, the user's uv.toml, the system's
uv.toml. Options of stoke are stronger still: `stoke.delivery.payload` puts them first.

Passwords are never recorded. The record says where they are, and `stoke.delivery.uv_config` reads them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stoke.errors import RequestError
from stoke.request.pep723 import read_script_metadata
from stoke.request.requirement import RequirementError, names
from stoke.request.requirements_text import parse_requirements
from stoke.request.uv_settings import IGNORED, KINDS, SPELLINGS, UvSetting, check_setting
from stoke.request.variables import expanded
from stoke.text.urls import NAMED_LOGIN, split_login

if TYPE_CHECKING:
    from stoke.request.spec import JobSpec

Table = dict[str, Any]

# Variables that hold the value of one setting.
_TEXT_VARIABLES = {
    "UV_EXCLUDE_NEWER": "exclude-newer",
    "UV_FORK_STRATEGY": "fork-strategy",
    "UV_INDEX_STRATEGY": "index-strategy",
    "UV_KEYRING_PROVIDER": "keyring-provider",
    "UV_PRERELEASE": "prerelease",
    "UV_RESOLUTION": "resolution",
    "UV_TORCH_BACKEND": "torch-backend",
}
_FLAG_VARIABLES = {
    "UV_GIT_LFS": "git-lfs",
    "UV_NATIVE_TLS": "native-tls",
    "UV_NO_BINARY": "no-binary",
    "UV_NO_BUILD": "no-build",
    "UV_NO_BUILD_ISOLATION": "no-build-isolation",
    "UV_NO_INDEX": "no-index",
    "UV_NO_SOURCES": "no-sources",
    "UV_OFFLINE": "offline",
    "UV_REQUIRE_BUILD_HASHES": "require-build-hashes",
    "UV_SYSTEM_CERTS": "system-certs",
}
_LIST_VARIABLES = {
    "UV_FIND_LINKS": "find-links",
    "UV_INSECURE_HOST": "allow-insecure-host",
    "UV_NO_BINARY_PACKAGE": "no-binary-package",
    "UV_NO_BUILD_PACKAGE": "no-build-package",
    "UV_NO_SOURCES_PACKAGE": "no-sources-package",
}
# Variables that name requirements files.
_FILE_VARIABLES = {
    "UV_BUILD_CONSTRAINT": "build-constraint-dependencies",
    "UV_CONSTRAINT": "constraint-dependencies",
    "UV_EXCLUDE": "exclude-dependencies",
    "UV_OVERRIDE": "override-dependencies",
}
_FLAG_VALUES = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off", ""), False),
}


def take_in(
    spec: JobSpec,
    environ: Mapping[str, str] = os.environ,
    project: tuple[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Return the fields of `spec` that change: texts with variables filled in, and settings as `uv`.

    `project` has the settings of the request's project, and the file that they are in.

    Empty for a request without packages. A request that has settings recorded already keeps them.
    `RequestError` names the variable or file, the setting, and what is wrong.
    """
    if not spec.has_packages:
        return {}
    changes: dict[str, Any] = {}
    dependencies = [expanded(text, "dependencies", environ) for text in spec.dependencies]
    if tuple(dependencies) != spec.dependencies:
        changes["dependencies"] = dependencies
    for field, text in (("requirements", spec.requirements), ("constraints", spec.constraints)):
        if "${" in text:
            lines = text.splitlines(keepends=True)
            changes[field] = "".join(
                expanded(line, f"{field} line {number}", environ)
                for number, line in enumerate(lines, 1)
            )
    if spec.uv is not None:
        return changes
    settings = _collected(spec, environ, project)
    changes["uv"] = dict(sorted(settings.items()))
    if "sources" in settings:
        _check_sources(spec, settings)
    return changes


# --- uv's settings -------------------------------------------------------------------------------


def _collected(
    spec: JobSpec, environ: Mapping[str, str], project: tuple[str, Mapping[str, Any]] | None
) -> dict[str, UvSetting]:
    settings: dict[str, UvSetting] = {}
    for name, value, variable in _from_variables(environ):
        _add(settings, name, value, variable)
    script = _from_script(spec.code)
    for name, value in script.items():
        _add(settings, name, value, "[tool.uv] of the script")
    if project is not None:
        file, table = project
        for name, value in _settings_of(dict(table), file, file).items():
            _add(settings, name, value, file)
    for path in _files(environ):
        for name, value in _from_file(path).items():
            _add(settings, name, value, str(path))
    return {name: _finished(name, one, environ) for name, one in settings.items()}


def _add(settings: dict[str, UvSetting], name: str, value: Any, source: str) -> None:
    """Add a weaker source: lists and tables grow at their end, any other setting keeps its value."""
    _check(name, value, source)
    known = settings.get(name)
    if known is None:
        settings[name] = UvSetting(value=value, source=source)
        return
    if isinstance(value, list):
        value = known.value + [item for item in value if item not in known.value]
    elif isinstance(value, dict):
        value = {**value, **known.value}
    else:
        return
    settings[name] = UvSetting(value=value, source=f"{known.source}, {source}")


def _check(name: str, value: Any, source: str) -> None:
    try:
        check_setting(name, value)
    except ValueError as error:
        raise RequestError("uv", f"{source}: {name} {error}", _hint(source, name)) from None


def _hint(source: str, name: str) -> str:
    if source.startswith("[tool.uv]"):
        return f"change or remove {name} in the script's [tool.uv]"
    if source.startswith("UV_"):
        return f"unset it for this request: env -u {source} stoke run ..."
    if source.endswith("pyproject.toml"):
        return f"change or remove {name} in [tool.uv] of {source}"
    return f"change {source}, or ignore uv's configuration files: UV_NO_CONFIG=1 stoke run ..."


def _from_variables(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    """Return (setting, value, variable) of each variable that is set. The order of indexes is uv's."""
    found: list[tuple[str, Any, str]] = []
    if not any(name.startswith("UV_") for name in environ):
        return found
    for variable in ("UV_INDEX", "UV_EXTRA_INDEX_URL"):
        for address in environ.get(variable, "").split():
            found.append(("index", [_index(address, f"env:{variable}")], variable))
    for variable in ("UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if address := environ.get(variable, "").strip():
            index = _index(address, f"env:{variable}") | {"default": True}
            found.append(("index", [index], variable))
    for variable, name in _TEXT_VARIABLES.items():
        if value := environ.get(variable):
            found.append((name, value, variable))
    for variable, name in _FLAG_VARIABLES.items():
        if variable in environ:
            flag = _FLAG_VALUES.get(environ[variable].lower())
            if flag is None:
                raise RequestError("uv", f"{variable} must be true or false", _hint(variable, name))
            found.append((name, flag, variable))
    for variable, name in _LIST_VARIABLES.items():
        if values := re.findall(r"[^\s,]+", environ.get(variable, "")):
            found.append((name, values, variable))
    for variable, name in _FILE_VARIABLES.items():
        for path in environ.get(variable, "").split():
            found.append((name, _requirements_of(path, variable, environ), variable))
    return found


def _requirements_of(path: str, variable: str, environ: Mapping[str, str]) -> list[str]:
    from stoke.request.requirements_files import read_requirements

    try:
        text = read_requirements([os.path.expanduser(path)], environ=environ).requirements
    except RequestError as error:
        raise RequestError("uv", f"{variable}: {error.what}", _hint(variable, path)) from None
    return [entry.text for entry in parse_requirements(text).requirements]


def _from_script(code: str) -> Table:
    try:
        metadata = read_script_metadata(code)
    except RequirementError as error:
        raise RequestError(error.field, f"{error.text!r} {error.why}") from None
    if metadata is None:
        return {}
    return _settings_of(metadata.uv, "[tool.uv] of the script")


def _files(environ: Mapping[str, str]) -> list[Path]:
    """Return the configuration files of uv that exist, the stronger first."""
    if own := environ.get("UV_CONFIG_FILE"):
        return [Path(own)]
    if _FLAG_VALUES.get(environ.get("UV_NO_CONFIG", "").lower(), True):
        return []
    home = environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    files = [os.path.join(home, "uv", "uv.toml")]
    if not _FLAG_VALUES.get(environ.get("UV_NO_SYSTEM_CONFIG", "").lower(), True):
        folders = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
        system = [os.path.join(folder, "uv", "uv.toml") for folder in folders if folder]
        files += [path for path in (*system, "/etc/uv/uv.toml") if os.path.isfile(path)][:1]
    return [Path(path) for path in files if os.path.isfile(path)]


def _from_file(path: Path) -> Table:
    try:
        status = path.stat()
        table = dict(_read_toml(path, status.st_mtime_ns, status.st_size))
    except (OSError, ValueError) as error:
        raise RequestError("uv", f"{path} cannot be read: {error}", _hint(str(path), "")) from None
    pip = table.pop("pip", {})
    if not isinstance(pip, dict):
        raise RequestError("uv", f"{path}: pip must be a table", _hint(str(path), ""))
    stronger = _settings_of(pip, f"{path}, [pip]", str(path))
    settings = _settings_of(table, str(path), str(path))
    if "index" in stronger and "index" in settings:
        stronger["index"] = [*stronger["index"], *settings["index"]]
    return {**settings, **stronger}


@lru_cache(maxsize=4)
def _read_toml(path: Path, mtime_ns: int, size: int) -> Table:  # noqa: ARG001
    """Read a file once as long as it does not change: the form asks for it while its user types."""
    from stoke.files.untrusted import read_toml

    return read_toml(path)


def _settings_of(table: Table, where: str, file: str | None = None) -> Table:
    """Return the settings in a table of uv's, each in one spelling, without those that are ignored."""
    settings: Table = {}
    # A password in a script is refused instead: the script is stored with the job.
    reference = f"file:{file}" if file else None
    in_pip = where.endswith("[pip]")
    for name, value in table.items():
        if name in IGNORED or (name == "pip" and value == {}):
            continue
        if name == "pip" and isinstance(value, dict):
            settings.update(_settings_of(value, f"{where}, [pip]", file))
            continue
        if name not in KINDS and name not in SPELLINGS:
            raise RequestError(
                "uv", f"{where}: {name} is not a setting of uv that is known here",
                _hint(file or where, name),
            )  # fmt: skip
        settings[name] = _plain(value)
    if in_pip:
        # In [pip] these two are lists of packages, in which :all: and :none: mean the flag.
        for name, flag in (("no-binary", "no-binary"), ("only-binary", "no-build")):
            packages = settings.pop(name, None)
            if isinstance(packages, list):
                settings[f"{flag}-package"] = [one for one in packages if ":" not in one]
                if ":all:" in packages or ":none:" in packages:
                    settings[flag] = ":all:" in packages
            elif packages is not None:
                settings[name] = packages
    indexes: list[Any] = []
    for index in _list(settings.pop("index", [])):
        if isinstance(index, dict) and "credentials" in index:
            # `credentials` is a key of stoke's record, not of uv. This name is refused later.
            index = {**index, "credentials in a file": None}
        if isinstance(index, dict) and isinstance(index.get("url"), str):
            rest = {key: one for key, one in index.items() if key not in ("url", "publish-url")}
            index = _index(index["url"], reference) | rest
        indexes.append(index)
    for address in _list(settings.pop("extra-index-url", [])):
        indexes.append(_index(address, reference))
    if "index-url" in settings:
        indexes.append(_index(settings.pop("index-url"), reference) | {"default": True})
    if indexes:
        settings["index"] = indexes
    return settings


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _plain(value: Any) -> Any:
    """Return a TOML value as JSON has it; `exclude-newer` may be a date."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value.isoformat() if hasattr(value, "isoformat") else value


# --- indexes and their logins --------------------------------------------------------------------


def _index(address: Any, reference: str | None) -> Table:
    """Return an index as uv's configuration has it. A login in the address is replaced by the reference
    to its source; without a reference it stays, and is refused later."""
    if not isinstance(address, str):
        return {"url": address}  # Refused later, with the place where it was written.
    index: Table = {}
    name, equals, rest = address.partition("=")
    if equals and re.fullmatch(r"[A-Za-z0-9._-]+", name):
        index["name"], address = name, rest
    login, url = split_login(address)
    if login and reference and not NAMED_LOGIN.fullmatch(login):
        return {**index, "url": url, "credentials": reference}
    return {**index, "url": address}


def login_variables(name: str) -> tuple[str, str]:
    """Return the two variables in which uv looks for the login of an index called `name`."""
    stem = "UV_INDEX_" + re.sub(r"[^A-Z0-9]", "_", name.upper())
    return f"{stem}_USERNAME", f"{stem}_PASSWORD"


def _finished(name: str, setting: UvSetting, environ: Mapping[str, str]) -> UvSetting:
    """Return `setting` with variables filled in. Indexes whose login is in variables get a reference to
    them."""
    value: list[Any] = []
    if KINDS[name] in ("addresses", "requirements"):
        value = [expanded(text, f"uv.{name}", environ) for text in setting.value]
    elif name == "index":
        for index in setting.value:
            index = {**index, "url": expanded(index["url"], "uv.index", environ)}
            own = login_variables(index["name"]) if "name" in index else ()
            if used := [variable for variable in own if variable in environ]:
                index["credentials"] = f"env:{used[0]}"
            value.append(index)
    else:
        return setting
    _check(name, value, setting.source)
    return setting.model_copy(update={"value": value})


def _check_sources(spec: JobSpec, settings: dict[str, UvSetting]) -> None:
    """Refuse sources that uv would ignore: a private name would then come from a public index."""
    known = {index.get("name") for index in settings["index"].value} if "index" in settings else ()
    requirements = [entry.text for entry in spec.parsed_requirements().requirements]
    asked = names([*spec.dependencies, *requirements])
    sources = settings["sources"]
    for package, given in sources.value.items():
        for source in _list(given):
            if "index" in source and source["index"] not in known:
                raise RequestError(
                    "uv",
                    f"{sources.source}: sources names the index {source['index']!r} for {package}, "
                    "and no index of that name is set",
                    "add it: [[tool.uv.index]] with name and url",
                )
        if names([package]) and names([package])[0] not in asked:
            raise RequestError(
                "uv",
                f"{sources.source}: sources names {package}, which is not one of the request's own "
                "packages, so uv would take it from the other indexes",
                f"add {package} to the dependencies, or remove its source",
            )
