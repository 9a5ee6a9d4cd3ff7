"""Reads config.toml and the STOKE_* variables with pydantic-settings.

Apart from `stoke.config` because pydantic-settings costs as much to load as click does: it is
imported only where there is something to read.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from stoke.config import Config
from stoke.errors import RequestError


class _Settings(BaseSettings, Config):
    model_config = SettingsConfigDict(
        env_prefix="STOKE_", env_nested_delimiter="__", extra="ignore", frozen=True
    )


def read_sources(path: Path) -> dict[str, Any]:
    """The settings as given, variables over the file, not validated yet."""
    given: dict[str, Any] | None = None
    if path.exists():
        try:
            given = TomlConfigSettingsSource(_Settings, toml_file=path)()
        except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RequestError(str(path), f"cannot be read as TOML: {error}") from error
    try:
        variables = EnvSettingsSource(_Settings)() or {}
    except SettingsError as error:
        raise RequestError(
            "the STOKE_* variables",
            str(error),
            "lists are written as JSON there: STOKE_NIX__SUBSTITUTERS='[\"https://host/path\"]'",
        ) from error
    return _merged(given or {}, variables)


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    out = dict(under)
    for name, value in over.items():
        below = out.get(name)
        if isinstance(below, dict) and isinstance(value, dict):
            out[name] = _merged(below, value)
        else:
            out[name] = value
    return out
