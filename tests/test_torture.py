"""`make torture`, one round of each attack with a fixed seed: so it stays able to run."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from bench import torture

# Takes minutes; tests/tui/test_terminal.py opens the app.
LONG = {"sequence with the app"}


@pytest.mark.parametrize("name", [one for one in torture.ATTACKS if one not in LONG])
def test_one_round(name: str) -> None:
    try:
        torture.attack(name, seed=1, number=0)
    except torture.SkippedError as error:
        pytest.skip(str(error))


def test_a_fault_is_reported_with_the_seed_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn: list[float] = []

    def fails(arena: torture.Arena) -> None:
        """Fails."""
        drawn.append(arena.random.random())
        raise AssertionError("as it should")

    def passes(arena: torture.Arena) -> None:
        """Passes."""

    monkeypatch.setattr(torture, "ATTACKS", {"passes": passes})
    monkeypatch.setenv("SECONDS", "0")
    monkeypatch.setenv("SEED", "7")
    assert torture.main() == 0
    monkeypatch.setattr(torture, "ATTACKS", {"fails": fails, "passes": passes})
    assert torture.main() == 1
    said = capsys.readouterr().out
    assert "SEED=7 make torture" in said and "round 0: as it should" in said
    assert torture.main() == 1
    assert drawn[0] == drawn[1]


def test_a_command_that_crashes_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arena = torture.Arena(tmp_path, random.Random(1))
    crash = (torture.STOKE[0], "-c", "raise KeyError('x')")
    monkeypatch.setattr(torture, "STOKE", crash)
    with pytest.raises(AssertionError, match="KeyError"):
        arena.run("jobs")
