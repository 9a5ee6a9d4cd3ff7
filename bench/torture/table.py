"""Rounds of every attack for a while, and the table of what they found."""

from __future__ import annotations

import os
import random
import time
from dataclasses import dataclass, field

from bench.torture.rounds import ATTACKS, CUT, PASSED, SKIPPED, attack


@dataclass
class Row:
    name: str
    rounds: int = 0
    seconds: float = 0.0
    was_cut: bool = False
    text: str = ""
    faults: list[str] = field(default_factory=list)


def main() -> int:
    seconds = float(os.environ.get("SECONDS", "600"))
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed {seed}; again: SEED={seed} make torture", flush=True)
    rows = [Row(name) for name in ATTACKS]
    print(f"{'attack':22} {'rounds':>6} {'cut':>3} {'faults':>6} {'seconds':>7}  checked")
    ends = time.monotonic() + seconds
    for number, row in enumerate(rows):
        _fill(row, seed, (ends - time.monotonic()) / (len(rows) - number))
        what = row.text or ATTACKS[row.name].__doc__
        if row.was_cut and not row.rounds:
            what = f"NOTHING: one round takes longer than {row.seconds:.0f} s here"
        print(
            f"{row.name:22} {row.rounds:6} {row.was_cut:3} {len(row.faults):6} {row.seconds:7.1f}",
            what,
            flush=True,
        )
        for fault in row.faults[:5]:
            print(f"    {fault}", flush=True)
    return 1 if any(row.faults for row in rows) else 0


def _fill(row: Row, seed: int, seconds: float) -> None:
    """Run rounds until the time is over. What an attack leaves of its time goes to those after it."""
    began = time.monotonic()
    while row.rounds == 0 or time.monotonic() - began < seconds:
        left = seconds - (time.monotonic() - began)
        code, text = attack(row.name, seed, row.rounds, max(left, 1.0))
        if code == SKIPPED:
            row.text = f"skipped: {text}"
            break
        if code == CUT:
            row.was_cut = True
            break
        if code != PASSED:
            again = f"python -m bench.torture {row.name!r} {seed} {row.rounds}"
            row.faults.append(f"round {row.rounds}: {text}\n    again: {again}")
        elif text:
            row.text = text
        row.rounds += 1
        if row.name == "sequence with the app":
            break
    row.seconds = time.monotonic() - began
