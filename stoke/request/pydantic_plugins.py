"""Keep pydantic from looking for plugins, of which stoke uses none. Import it before defining a model.

For its search, pydantic imports `importlib.metadata` and reads the metadata of every installed
package: 20 ms of a start. Its variable PYDANTIC_DISABLE_PLUGINS spares it only the reading, and jobs
would inherit the variable.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_LOADER = "pydantic.plugin._loader"


class _NoPlugins(ModuleType):
    """A module without plugins, in place of pydantic's own. Any other name is looked up in that one."""

    @staticmethod
    def get_plugins() -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(_LOADER) is self:
            del sys.modules[_LOADER]
        return getattr(importlib.import_module(_LOADER), name)


sys.modules.setdefault(_LOADER, _NoPlugins(_LOADER))
