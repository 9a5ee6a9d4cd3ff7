"""Load the configuration from `config.toml` and the `STOKE_*` variables.

Variables win over the file; `__` goes a level down: `STOKE_DOCKER__HOST`. With neither a file nor a
variable, pydantic-settings is not imported: that takes 46 ms.
"""

from __future__ import annotations

import os

from pydantic import ValidationError

from stoke.config.model import Config
from stoke.errors import RequestError
from stoke.files.paths import NOT_SETTINGS, config_file, is_configured
from stoke.request.spec import explain


def unknown_variables() -> list[str]:
    """Return the STOKE_* variables that are no settings, and probably misspelt.

    They are ignored, because another version may know them; `stoke doctor` names them.
    """
    known = NOT_SETTINGS | {f"STOKE_{name.upper()}" for name in Config.model_fields}
    return sorted(
        name
        for name in os.environ
        if name.upper().startswith("STOKE_")
        and name.upper().partition("__")[0] not in known
        and not name.startswith(("STOKE_TEST_", "STOKE_CI_"))
    )


def load_config() -> Config:
    """Read the file and the variables. `RequestError` names a wrong setting and its file."""
    path = config_file()
    if not is_configured():
        return Config.model_construct()
    from stoke.config.sources import read_settings

    try:
        return read_settings(path)
    except ValidationError as error:
        field, why = explain(error)
        raise RequestError(field, f"{why} (in {path} or the STOKE_* variables)") from None
