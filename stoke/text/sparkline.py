"""Curves of block characters."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int, top: float) -> str:
    """Return the last `width` values as a block each; the highest one is for `top` and more."""
    return column_chart(values, width, 1, top)[0]


def column_chart(values: Sequence[float], width: int, rows: int, top: float) -> list[str]:
    """Return the last `width` values as columns of blocks in `rows` rows, `top` at full height.

    The lowest row has a block for any value, so that it shows where there are some.
    """
    steps = len(_BLOCKS)
    most = rows * steps - 1
    heights = [
        max(0, min(most, round(value / top * most))) if top > 0 else 0 for value in values[-width:]
    ]
    lines = []
    for row in reversed(range(rows)):
        beginning = row * steps
        lines.append(
            "".join(
                " " if height < beginning else _BLOCKS[min(steps - 1, height - beginning)]
                for height in heights
            )
        )
    return lines
