"""Keep the cache of border colours from holding every widget that was ever drawn.

Textual 8.2.8 puts an `lru_cache` on the method `StylesCache.get_inner_outer`, so the instance is part
of each key: everything that a closed dialog drew stays in memory and in the garbage collector's way.
Importing this module caches by the two colours alone.

https://github.com/Textualize/textual/issues/6665
"""

from __future__ import annotations

from functools import lru_cache

from textual._styles_cache import StylesCache

StylesCache.get_inner_outer = classmethod(  # type: ignore[method-assign, assignment]
    lru_cache(1024)(StylesCache.get_inner_outer.__wrapped__)  # type: ignore[arg-type]
)
