"""Allow credential plugins: programs that a kubeconfig names, which run only with the user's
consent.

Any program that can write the kubeconfig decides what runs here, as this user. So consent is asked
once for each combination of program, arguments, variables and kubeconfig.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from stoke.errors import EngineError
from stoke.files.paths import make_private, state_dir
from stoke.files.untrusted import read_json

if TYPE_CHECKING:
    from backends.argo.kubeconfig import Plugin


def refuse_unknown(plugin: Plugin) -> None:
    """Raise `EngineError` unless `allow` was called for the plugin before."""
    if not is_allowed(plugin):
        raise EngineError(
            f"{plugin.source} runs a program for credentials that you have not allowed yet: "
            f"{shlex.join(plugin.command)}",
            "check it, then allow it: stoke setup argo --allow-plugin",
        )


def is_allowed(plugin: Plugin) -> bool:
    return _digest(plugin) in _allowed()


def allow(plugin: Plugin) -> None:
    allowed = [*_allowed(), _digest(plugin)]
    make_private(state_dir())
    _file().write_text(json.dumps(sorted(set(allowed))))


def _allowed() -> list[str]:
    try:
        known = read_json(_file())
    except (OSError, ValueError):
        return []
    return [one for one in known if isinstance(one, str)] if isinstance(known, list) else []


def _file() -> Path:
    return state_dir() / "kubeconfig-plugins.json"


def _digest(plugin: Plugin) -> str:
    said = [list(plugin.command), [list(one) for one in plugin.variables], plugin.source]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
