"""The confirmation before clearing a cache: asks for the name of the scope."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from stoke.backend.api import Volume
from stoke.cache.volumes import Progress
from stoke.text.sanitize import clean
from tui import format as fmt
from tui.caches.confirm_by_name import ConfirmByName

_KINDS = {
    "python": "all Python environments, lockfiles and downloaded packages",
    "system": "all system packages",
}


class ClearCache(ConfirmByName[Volume]):
    TITLE_TEXT = "Clear this cache?"
    VERB = "Clear"
    NAME_OF = "the scope"
    STILL_USED = "Stop them before clearing it."

    def __init__(self, volume: Volume, measure: Callable[[Progress], Volume]) -> None:
        super().__init__(volume, volume.scope, measure)

    def describe(self, thing: Volume) -> Text:
        what = _KINDS.get(thing.kind, "everything in it")
        where = f"{thing.node} ({thing.backend})" if thing.node else thing.backend
        return Text.assemble(
            fmt.plain(fmt.place(thing.name), "bold"),
            f" on {clean(where)}\n\nDeletes {clean(what)}. Jobs that need them build and "
            "download them again.\n",
        )

    def figures(self, thing: Volume) -> str:
        count = fmt.UNKNOWN if thing.entries is None else f"{thing.entries:,}"
        entries = "entry" if thing.entries == 1 else "entries"
        return f"{fmt.size(thing.bytes)} in {count} {entries}"
