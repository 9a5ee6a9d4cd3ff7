"""Earlier races: the newest are kept, and damaged files are skipped."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoke.files.paths import state_dir
from stoke.race import earlier
from tests.tui.test_race_screen import recorded


def test_the_newest_races_are_kept(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(earlier, "MOST_RACES", 3)
    assert earlier.earlier_races() == []
    for number in (3, 1, 5, 2, 4):
        earlier.keep(recorded().model_copy(update={"raced_at": float(number)}))
    assert [one.raced_at for one in earlier.earlier_races()] == [5, 4, 3]
    newest = max((state_dir() / "races").iterdir())
    assert newest.stat().st_mode & 0o777 == 0o600
    newest.write_text("{}")
    assert [one.raced_at for one in earlier.earlier_races()] == [4, 3]
