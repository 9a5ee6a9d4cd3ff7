"""What the runner reads and reports of the processor time and memory of the code."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stoke.remote.events import Event, EventScanner
from stoke.remote.runner import usage
from stoke.remote.runner.event_writer import EventWriter
from tests.lab import until

NONCE = "5f1c0a9be2d34718"
HOLDS_MEMORY = "held = b'x' * {bytes}; print(flush=True); input()"
WITH_CHILD = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "held = b'x' * 30_000_000; print(flush=True); input()"])
input()
"""
BUSY = """
import time
while True:
    sum(range(10_000))
"""


def started(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


@pytest.mark.parametrize("code", [HOLDS_MEMORY.format(bytes=30_000_000), WITH_CHILD])
def test_the_memory_of_a_process_and_its_children_is_read(code: str) -> None:
    with started(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        reading = usage.tree_usage(process.pid)
        process.kill()
    assert reading is not None
    assert 30_000_000 < reading[1] < 200_000_000


def test_a_process_that_has_ended_has_no_usage() -> None:
    with started("pass") as process:
        process.communicate()
    assert usage.tree_usage(process.pid) is None


def test_reports_have_the_load_since_the_last_one_and_take_little_time() -> None:
    written: list[bytes] = []
    events = EventWriter(NONCE, [], False, lambda _, data: written.append(data))
    with started(BUSY) as process:
        try:
            spent = usage.tree_usage(process.pid)
            reporter = usage.UsageReporter(events, process.pid, in_container=False)
            until(
                lambda: (usage.tree_usage(process.pid) or (0, 0))[0] >= (spent or (0, 0))[0] + 0.5,
                "half a second of processor time",
            )
            wait = reporter.report()
        finally:
            process.kill()
    assert wait is not None and usage.INTERVAL <= wait <= 60
    (event,) = reported(written)
    assert 0 < event["cores"] < 4 and event["memory"] > 1_000_000
    assert abs(event["time"] - time.time()) < 5
    assert reporter.peak == event["memory"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_is_read_without_the_file_contents_that_are_dropped_first(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = f"{tmp_path}/"
    monkeypatch.setattr(usage, "_CGROUP", root)
    monkeypatch.setattr(usage, "_V1_ROOT", root + "freezer/cgroup.sane_behavior")
    memory = root + "memory/memory.usage_in_bytes", root + "memory/memory.stat"
    monkeypatch.setattr(usage, "_V1_MEMORY", memory)
    if version == 1:
        for folder in ("cpuacct", "memory"):
            os.mkdir(root + folder)
        Path(root, "cpuacct/cpuacct.usage").write_text("2500000000\n")
        Path(memory[0]).write_text("1000\n")
        Path(memory[1]).write_text("inactive_file 0\ntotal_inactive_file 300\n")
    else:
        Path(root, "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
        Path(root, "memory.current").write_text("1000\n")
        Path(root, "memory.stat").write_text("anon 1\ninactive_file 300\nactive_file 2\n")
    assert usage.cgroup_usage() == (2.5, 700)


def test_a_root_cgroup_without_figures_is_none_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_CGROUP", f"{tmp_path}/")
    monkeypatch.setattr(usage, "_V1_MEMORY", (f"{tmp_path}/a", f"{tmp_path}/b"))
    (tmp_path / "cpu.stat").write_text("usage_usec 2500000\n")
    assert usage.cgroup_usage() is None


def test_the_figures_of_the_whole_machine_are_none_of_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container of rootless Podman on cgroups v1 sees cgroups of others."""
    monkeypatch.setattr(usage, "_CGROUP", f"{tmp_path}/")
    memory = tmp_path / "memory"
    figures = memory / "memory.usage_in_bytes", memory / "memory.stat"
    monkeypatch.setattr(usage, "_V1_MEMORY", tuple(map(str, figures)))
    monkeypatch.setattr(usage, "_V1_ROOT", str(tmp_path / "freezer/cgroup.sane_behavior"))
    for path in (memory, tmp_path / "cpuacct", tmp_path / "freezer"):
        path.mkdir()
    (tmp_path / "cpuacct/cpuacct.usage").write_text("2500000000\n")
    figures[0].write_text("1000\n")
    figures[1].write_text("total_inactive_file 300\n")
    assert usage.cgroup_usage() == (2.5, 700)
    (tmp_path / "freezer/cgroup.sane_behavior").write_text("0\n")
    assert usage.cgroup_usage() is None


def reported(written: list[bytes]) -> list[Event]:
    found = EventScanner(NONCE).feed(b"".join(written))
    return [part for part in found if isinstance(part, dict)]
