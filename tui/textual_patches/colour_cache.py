"""What is wrong in Textual itself, mended by importing this; its version is pinned."""

from __future__ import annotations

from functools import lru_cache

from textual._styles_cache import StylesCache

# Its cache of pairs of colours has the asking widget's lines in its keys: what every dialog drew
# stays in memory after the dialog has gone, and garbage is looked for among it.
StylesCache.get_inner_outer = classmethod(  # type: ignore[method-assign, assignment]
    lru_cache(1024)(StylesCache.get_inner_outer.__wrapped__)  # type: ignore[arg-type]
)
