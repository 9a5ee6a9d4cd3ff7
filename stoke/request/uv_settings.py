"""uv's settings that a request records: which ones count, which are ignored, and what is refused.

uv reads settings from variables, from its configuration files and from the `[tool.uv]` table of a
script. `stoke.request.surroundings` collects them when a request is submitted; this module knows
their names and checks their values. Each is described at
https://docs.astral.sh/uv/reference/settings/.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import BaseModel, ConfigDict

import stoke.request.pydantic_plugins  # noqa: F401
from stoke.request.requirement import RequirementError, check_requirement
from stoke.text.urls import AddressFault, address_fault

# Setting to the kind of its value. These settings can change which packages a job gets.
RESULT = {
    "build-constraint-dependencies": "requirements",
    "config-settings": "table",
    "config-settings-package": "table",
    "constraint-dependencies": "requirements",
    "dependency-metadata": "tables",
    "exclude-dependencies": "texts",
    "exclude-newer": "text",
    "exclude-newer-package": "table",
    "extra-build-dependencies": "table",
    "extra-build-variables": "table",
    "find-links": "addresses",
    "fork-strategy": "text",
    "git-lfs": "flag",
    "index": "indexes",
    "index-strategy": "text",
    "no-binary": "flag",
    "no-binary-package": "texts",
    "no-build": "flag",
    "no-build-isolation": "flag",
    "no-build-isolation-package": "texts",
    "no-build-package": "texts",
    "no-deps": "flag",
    "no-index": "flag",
    "no-sources": "flag",
    "no-sources-package": "texts",
    "offline": "flag",
    "override-dependencies": "requirements",
    "prerelease": "text",
    "prerelease-package": "table",
    "require-build-hashes": "flag",
    "resolution": "text",
    "sources": "sources",
    "torch-backend": "text",
}
# These settings decide only how uv reaches a server, so they are no part of the cache keys.
CONNECTION = {
    "allow-insecure-host": "texts",
    "http-proxy": "proxy",
    "https-proxy": "proxy",
    "keyring-provider": "text",
    "native-tls": "flag",
    "no-proxy": "texts",
    "system-certs": "flag",
}
KINDS = {**RESULT, **CONNECTION}
# Other spellings, which `stoke.request.surroundings` turns into one of the settings above.
SPELLINGS = ("index-url", "extra-index-url", "only-binary")
# These settings do not change the packages of a job: they concern projects, uv's own output, where
# uv installs, or things that a job decides itself (its interpreter, its caches, its hashes).
IGNORED = frozenset(
    [
        "add-bounds",
        "all-extras",
        "allow-empty-requirements",
        "annotation-style",
        "audit",
        "break-system-packages",
        "build-backend",
        "cache-dir",
        "cache-keys",
        "check-url",
        "compile-bytecode",
        "concurrent-builds",
        "concurrent-downloads",
        "concurrent-installs",
        "conflicts",
        "custom-compile-command",
        "default-groups",
        "dependency-groups",
        "dev-dependencies",
        "emit-build-options",
        "emit-find-links",
        "emit-index-annotation",
        "emit-index-url",
        "emit-marker-expression",
        "environments",
        "extra",
        "generate-hashes",
        "graalpy-install-mirror",
        "group",
        "link-mode",
        "managed",
        "minimum-libc-version",
        "no-annotate",
        "no-cache",
        "no-emit-package",
        "no-extra",
        "no-header",
        "no-strip-extras",
        "no-strip-markers",
        "output-file",
        "package",
        "prefix",
        "preview",
        "preview-features",
        "publish-url",
        "pyodide-install-mirror",
        "pypy-install-mirror",
        "python",
        "python-downloads",
        "python-downloads-json-url",
        "python-install-mirror",
        "python-platform",
        "python-preference",
        "python-version",
        "reinstall",
        "reinstall-package",
        "require-hashes",
        "required-environments",
        "required-version",
        "strict",
        "system",
        "target",
        "trusted-publishing",
        "universal",
        "upgrade",
        "upgrade-package",
        "verify-hashes",
        "workspace",
    ]
)

_INDEX_KEYS: dict[str, type | tuple[type, ...]] = {
    "authenticate": str,
    "cache-control": dict,
    "credentials": str,
    "default": bool,
    "exclude-newer": (str, bool),
    "explicit": bool,
    "format": str,
    "ignore-error-codes": list,
    "name": str,
    "url": str,
}
# uv's own rule for the name of an index.
_INDEX_NAME = re.compile(r"[A-Za-z0-9._-]+")
_SOURCE_ADDRESSES = {
    "git": ("https", "http", "ssh", "git+https", "git+http", "git+ssh"),
    "url": ("https", "http"),
}


class UvSetting(BaseModel):
    """One recorded setting."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    value: Any
    """As uv's own configuration file has it, passwords left out."""
    source: str
    """Where it comes from, for people: a variable, a file, the script."""


def check_setting(name: str, value: Any) -> None:
    """Return if a job can use `value` for the setting `name`; `ValueError` says what is wrong."""
    kind = KINDS.get(name)
    if kind is None:
        raise ValueError("is not a setting of uv that is known here")
    # Half a surrogate pair, which JSON allows, is no text for a file: this raises a ValueError.
    json.dumps(value, ensure_ascii=False, default=str).encode()
    _check_kind(kind, value)
    if name == "torch-backend" and value == "auto":
        raise ValueError(
            "is auto, which depends on the machine that runs the job; name one, such as cpu"
        )


def _check_kind(kind: str, value: Any) -> None:
    if kind == "text":
        _require(isinstance(value, str), "must be text")
    elif kind == "flag":
        _require(isinstance(value, bool), "must be true or false")
    elif kind == "table":
        _require(isinstance(value, dict), "must be a table")
    elif kind == "tables":
        _require(_is_list(value, dict), "must be a list of tables")
    elif kind == "proxy":
        _require(isinstance(value, str), "must be text")
        _require("@" not in value, "holds a password; set index.proxy or HTTPS_PROXY instead")
    elif kind == "texts":
        _require(_is_list(value, str), "must be a list of texts")
    elif kind == "requirements":
        _require(_is_list(value, str), "must be a list of requirements")
        for text in value:
            try:
                check_requirement(text, "")
            except RequirementError as error:
                raise ValueError(f"holds {error.text!r}, which {error.why}") from None
    elif kind == "addresses":
        _require(_is_list(value, str), "must be a list of addresses")
        for address in value:
            check_address(address)
    elif kind == "indexes":
        _require(_is_list(value, dict), "must be a list of tables")
        for index in value:
            _check_index(index)
    else:
        _require(isinstance(value, dict), "must be a table")
        for package, sources in value.items():
            for source in sources if isinstance(sources, list) else [sources]:
                _check_source(package, source)


def check_address(address: str, schemes: tuple[str, ...] = ("https", "http")) -> None:
    """Return if a job can reach `address` from another machine and it holds no written password."""
    fault = address_fault(address, schemes)
    if fault is AddressFault.SCHEME:
        shown = address if "@" not in address else "an address"
        raise ValueError(
            f"names {shown!r}, which does not travel to where the job runs; "
            f"only {', '.join(schemes)} addresses do"
        )
    if fault is AddressFault.PASSWORD:
        raise ValueError(
            "holds a password, which would be stored with the job; write ${NAME} for it, "
            "the name of a variable"
        )
    if fault is not None:
        raise ValueError("holds a broken address")


def _check_index(index: dict[str, Any]) -> None:
    for key, value in index.items():
        _require(key in _INDEX_KEYS, f"has an index with {key!r}, which is not known here")
        _require(isinstance(value, _INDEX_KEYS[key]), f"has an index with a wrong {key}")
    _require("url" in index, "has an index without a url")
    check_address(index["url"])
    name = index.get("name", "index")
    _require(_INDEX_NAME.fullmatch(name) is not None, f"has an index with a wrong name, {name!r}")
    reference = index.get("credentials", "env:X")
    _require(
        re.fullmatch(r"(env|file):.+", reference) is not None, "has an index with wrong credentials"
    )


def _check_source(package: str, source: Any) -> None:
    _require(isinstance(source, dict), f"must give a table for {package}")
    for key in ("path", "workspace", "editable"):
        if key in source:
            raise ValueError(
                f"has a {key} source for {package}, which does not travel to where the job runs; "
                "publish the package to an index, or use a git or url source"
            )
    _require(
        any(key in source for key in ("git", "url", "index")),
        f"must name git, url or index for {package}",
    )
    for key in ("git", "url"):
        if key in source:
            _require(isinstance(source[key], str), f"has a wrong {key} for {package}")
            check_address(source[key], _SOURCE_ADDRESSES[key])
            if "${" in source[key]:
                # uv takes such a name literally in a source.
                raise ValueError(
                    f"has a variable in the source for {package}; write the variable into the "
                    f"dependency itself: {package} @ git+https://${{NAME}}@..."
                )


def _is_list(value: Any, of: type) -> bool:
    return isinstance(value, list) and all(isinstance(item, of) for item in value)


def _require(holds: bool, why: str) -> None:
    if not holds:
        raise ValueError(why)
