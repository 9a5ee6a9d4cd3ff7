"""The variables that decide about a run: cron and systemd start programs with few of a shell's."""

from __future__ import annotations

import os
from collections.abc import Mapping

from stoke.files.paths import NOT_SETTINGS
from stoke.text.sanitize import looks_secret

_NAMES = frozenset(
    {"PATH", "HOME", "LANG", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR", "KUBECONFIG", "NETRC"}
)
_PREFIXES = ("STOKE_", "UV_", "XDG_", "LC_", "DOCKER_")
_FOLDERS = frozenset({"STOKE_STATE_DIR", "STOKE_CACHE_DIR", "STOKE_CONFIG"})
_PROXIES = frozenset({"http_proxy", "https_proxy", "all_proxy", "no_proxy"})


def recorded_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables to record with a schedule; paths of stoke's folders are made absolute.

    A variable whose name looks secret is left out: see `left_out`.
    """
    found = {name: value for name, value in environ.items() if _is_recorded(name)}
    for name in found.keys() & _FOLDERS:
        found[name] = os.path.abspath(found[name])
    return found


def left_out(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the settings that are not recorded because their names look secret."""
    return sorted(name for name in environ if name.startswith("STOKE_") and looks_secret(name))


def use_environment(recorded: Mapping[str, str]) -> None:
    """Give this process the recorded variables, and of those that are recorded no others."""
    for name in [name for name in os.environ if _is_recorded(name) and name not in recorded]:
        del os.environ[name]
    os.environ.update(recorded)


def _is_recorded(name: str) -> bool:
    if looks_secret(name) or name in NOT_SETTINGS - _FOLDERS:
        return False
    return name in _NAMES or name.lower() in _PROXIES or name.startswith(_PREFIXES)
