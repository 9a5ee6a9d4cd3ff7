"""What is wrong in Textual itself, mended here; its version is pinned."""

from __future__ import annotations

from functools import lru_cache

from textual._styles_cache import StylesCache


def mend() -> None:
    # Its cache of pairs of colours has the asking widget's lines in its keys: what every dialog drew
    # stays in memory after the dialog has gone, and garbage is looked for among it.
    pair = getattr(StylesCache.get_inner_outer, "__wrapped__", None)
    if pair is not None:
        StylesCache.get_inner_outer = classmethod(lru_cache(1024)(pair))  # type: ignore
