"""Know that `slash`, `at`, `plus` and others are keys that a text field takes.

Textual 8.2.8 gives six characters keys with shorter names than theirs in Unicode, and
`key_to_character` does not know them. So a field that has the focus leaves the bindings of these keys
active: the key bar, the help and the palette show them while the key itself is typed. Importing this
module makes `Screen` ask for the names of Unicode.

No upstream issue is known.
"""

from __future__ import annotations

from functools import lru_cache

import textual.screen
from textual.keys import REPLACED_KEYS, key_to_character


@lru_cache(1024)
def _to_character(key: str) -> str | None:
    return key_to_character(REPLACED_KEYS.get(key, key))


textual.screen.key_to_character = _to_character  # type: ignore[attr-defined]
