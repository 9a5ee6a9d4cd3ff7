"""`make torture`, one round of most attacks with a fixed seed."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from bench.torture import arena, rounds, table
from tests.lab import until

# These take long, and other tests cover them: tests/backends/docker/test_engine_restart.py and
# tests/contract/test_bad_days.py.
LONG = {"kill an engine", "fill the cache", "fill a Docker volume"}


@pytest.mark.parametrize("name", [one for one in rounds.ATTACKS if one not in LONG])
def test_one_round(name: str) -> None:
    code, text = rounds.attack(name, seed=1, number=0, seconds=1, cut_after=300)
    if code == rounds.SKIPPED:
        pytest.skip(text)
    assert code == rounds.PASSED, text


def test_a_round_is_cut_with_its_processes_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "rounds"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    command = [sys.executable, "-m", "bench.torture", "sequence with the app", "1", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as playing:
        until(lambda: bool(list(folder.glob("*/state/jobs/*/log"))), "a job of the round")
        playing.terminate()
    assert playing.returncode == rounds.CUT
    assert list(folder.iterdir()) == []
    for program in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert str(folder).encode() not in program.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            pass  # Another program has ended.


def test_a_round_that_takes_too_long_is_no_fault() -> None:
    assert rounds.attack("crowd", 1, 0, seconds=0.01) == (rounds.CUT, "")


def test_the_table_has_faults_with_the_command_that_repeats_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = {
        "crowd": (rounds.FAULT, "as it should"),
        "cut a flood": (rounds.CUT, ""),
        "fill the disk": (rounds.SKIPPED, "no disk"),
        "kill the client": (rounds.PASSED, "4 jobs"),
    }
    monkeypatch.setattr(table, "ATTACKS", {name: rounds.ATTACKS[name] for name in results})
    monkeypatch.setattr(table, "attack", lambda name, *_: results[name])
    monkeypatch.setenv("SECONDS", "0")
    monkeypatch.setenv("SEED", "7")
    assert table.main() == 1
    printed = capsys.readouterr().out
    assert "SEED=7 make torture" in printed and "skipped: no disk" in printed
    assert "round 0: as it should" in printed and "bench.torture 'crowd' 7 0" in printed
    del results["crowd"]
    monkeypatch.setattr(table, "ATTACKS", {name: rounds.ATTACKS[name] for name in results})
    assert table.main() == 0


def test_a_command_that_crashes_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crashing = arena.Arena(tmp_path, random.Random(1))
    crash = (arena.STOKE[0], "-c", "raise KeyError('x')")
    monkeypatch.setattr(arena, "STOKE", crash)
    with pytest.raises(AssertionError, match="KeyError"):
        crashing.run("jobs")
