"""The timezone of this machine, as a name that another machine knows."""

from __future__ import annotations

import os
from pathlib import Path

from stoke.errors import RequestError
from stoke.schedules.cron import check_timezone

LOCALTIME = Path("/etc/localtime")
_ZONES = "zoneinfo/"


def local_timezone() -> str:
    """Return the name in the tz database. Raises `RequestError` if the machine has the rules of its
    timezone and not its name."""
    name = _name()
    try:
        return check_timezone(name or "")
    except ValueError:
        raise RequestError(
            "timezone",
            "the cluster needs the name of the timezone of these times, and this machine does not tell "
            "its own",
            "name it: --timezone Europe/Berlin",
        ) from None


def _name() -> str | None:
    """Return the name as TZ or the link /etc/localtime has it; without either, the C library takes
    UTC."""
    given = os.environ.get("TZ")
    if given is not None:
        name = given.removeprefix(":")
        return "UTC" if not name else name.rpartition(_ZONES)[2]
    try:
        target = os.path.realpath(LOCALTIME, strict=True)
    except OSError:
        return "UTC"
    return target.rpartition(_ZONES)[2] if _ZONES in target else None
