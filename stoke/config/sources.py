"""Read config.toml and the STOKE_* variables with pydantic-settings.

Apart from `stoke.config.loader` because pydantic-settings costs as much to import as click: it is
imported only where there is something to read.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.files.paths import NOT_SETTINGS
from stoke.files.untrusted import read_toml


class _TomlSource(TomlConfigSettingsSource):
    """pydantic-settings' source for TOML, with limits to size and depth."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        try:
            return read_toml(Path(file_path))
        except (OSError, ValueError) as error:
            raise RequestError(str(file_path), f"cannot be read as TOML: {error}") from error


def read_settings(path: Path) -> Config:
    """Return the settings of the file and the variables, which win over it.

    `RequestError` for a file that is not TOML and for a variable that is not JSON where it has to be,
    pydantic's `ValidationError` for wrong values.
    """

    class ConfigSources(BaseSettings, Config):
        model_config = SettingsConfigDict(
            env_prefix="STOKE_", env_nested_delimiter="__", extra="forbid", frozen=True
        )

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            env_settings: Any,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            # pydantic-settings would read the folder of a job's results as the section `results`.
            env_settings.env_vars = {
                name: value
                for name, value in env_settings.env_vars.items()
                if name.upper() not in NOT_SETTINGS
            }
            return env_settings, _TomlSource(settings_cls, path)

    if os.path.exists(path) and not os.path.isfile(path):
        raise RequestError(str(path), "is not a file")  # pydantic-settings would pass over it.
    try:
        return ConfigSources()
    except RecursionError:
        raise RequestError("STOKE_*", "one of these variables is nested too deeply") from None
    except SettingsError as error:
        named = re.search(r'field "(\w+)"', str(error))
        raise RequestError(
            named[1] if named else "STOKE_*",
            "a list or a table in a STOKE_* variable has to be JSON",
            """for example: export STOKE_INDEX__EXTRA='["https://host/simple"]'""",
        ) from None
