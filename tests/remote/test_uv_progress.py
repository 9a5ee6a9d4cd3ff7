"""What the runner understands of uv's progress, and which lines it does not take for any."""

from __future__ import annotations

from typing import Any

import pytest

from stoke.remote.runner import uv_progress
from stoke.remote.runner.event_writer import EventWriter
from stoke.remote.runner.uv_progress import UvProgress
from tests.remote.test_runner_usage import NONCE, reported

OUTPUT = b"""\
DEBUG Selecting: numpy==2.2.6 [compatible] (numpy-2.2.6-cp311-cp311-manylinux_2_17_x86_64.whl)
Resolved 4 packages in 376ms
DEBUG Identified uncached distribution: idna==3.10
DEBUG Identified uncached distribution: numpy==2.2.6
DEBUG Identified uncached distribution: torch==2.7
DEBUG Identified uncached distribution: fit==1
Downloading numpy (16.0MiB)
Downloading torch (1.5GiB)
   Building fit==1
"""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    monkeypatch.setattr(uv_progress, "REPORT_SECONDS", 0.0)
    return []


def progress(written: list[bytes]) -> UvProgress:
    events = EventWriter(NONCE, [], False, lambda _, data: written.append(data))
    return UvProgress(events, "python")


def facts(written: list[bytes]) -> list[dict[str, Any]]:
    names = ("stage", "packages", "left", "bytes", "total")
    return [{name: event[name] for name in names if name in event} for event in reported(written)]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_each_step_of_uv_is_reported_however_its_output_is_cut(
    size: int, written: list[bytes]
) -> None:
    one = progress(written)
    numpy, torch = 16 << 20, 3 << 29
    told: list[dict[str, Any]] = []
    for text in (OUTPUT, b" Downloaded numpy\n", b" Downloaded torch\n", b"      Built fit==1\n",
                 b"Prepared 4 packages in 2.27s\n"):  # fmt: skip
        for at in range(0, len(text), size):
            one.add(text[at : at + size])
        one.report()
        told = facts(written)
    fetch = {"stage": "fetch", "packages": 4, "total": numpy + torch}
    assert told == [
        {**fetch, "left": ["numpy", "torch"], "bytes": 0},
        {**fetch, "left": ["torch"], "bytes": numpy},
        {"stage": "build", "packages": 1, "left": ["fit==1"]},
        {**fetch, "left": [], "bytes": numpy + torch},
        {"stage": "install", "packages": 4, "left": []},
    ]


@pytest.mark.parametrize(
    "line",
    [b"DEBUG   Downloading evil (1.0MiB)", b"      Downloading evil (1.0MiB)", b"Prepared nothing",
     b"Downloading evil (1.0MiB) and more", b"Downloading evil (1.0e9MiB)", b"Building evil",
     b"x" * 200_000, b"\xff\xfe"],
)  # fmt: skip
def test_other_lines_are_no_progress(line: bytes, written: list[bytes]) -> None:
    one = progress(written)
    one.add(b"DEBUG Identified uncached distribution: a==1\n" + line + b"\n")
    one.report()
    assert facts(written) == [
        {"stage": "fetch", "packages": 1, "left": [], "bytes": None, "total": None}
    ]


def test_nothing_is_reported_of_an_installation_from_the_cache(written: list[bytes]) -> None:
    one = progress(written)
    one.add(b"Resolved 4 packages in 376ms\nInstalled 4 packages in 247ms\n")
    one.report()
    assert written == []


def test_news_are_reported_once_and_not_too_often(
    written: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = progress(written)
    one.add(OUTPUT)
    one.report()
    one.report()
    assert len(written) == 1
    monkeypatch.setattr(uv_progress, "REPORT_SECONDS", 3600.0)
    one.add(b" Downloaded numpy\n")
    one.report()
    assert len(written) == 1
