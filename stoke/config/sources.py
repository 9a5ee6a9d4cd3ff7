"""Reads config.toml, and the STOKE_* variables with pydantic-settings.

Apart from `stoke.config` because pydantic-settings costs as much to load as click does: it is
imported only where there is something to read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.files.untrusted import read_toml


class _Settings(BaseSettings, Config):
    model_config = SettingsConfigDict(
        env_prefix="STOKE_", env_nested_delimiter="__", extra="ignore", frozen=True
    )


def read_sources(path: Path) -> dict[str, Any]:
    """The settings as given, variables over the file, not validated yet."""
    given: dict[str, Any] = {}
    if os.path.exists(path):
        try:
            given = read_toml(path)
        except (OSError, ValueError) as error:
            raise RequestError(str(path), f"cannot be read as TOML: {error}") from error
    try:
        return _merged(given, EnvSettingsSource(_Settings)() or {})
    except RecursionError:
        raise RequestError("STOKE_*", "one of these variables is nested too deeply") from None
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        raise RequestError(
            named[1] if named else "STOKE_*",
            "a list or a table in a STOKE_* variable has to be JSON",
            """for example: export STOKE_INDEX__EXTRA='["https://host/simple"]'""",
        ) from None


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for name, value in over.items():
        below = out.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            out[name] = _merged(below, value)
        else:
            out[name] = value
    return out
