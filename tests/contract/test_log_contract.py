"""A job's log on every backend, as commands and the log window read it from the spool."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stoke.files.paths import job_dir
from stoke.logs.reader import Matches, save
from stoke.logs.search import Query
from tests.lab import Lab
from tests.spools import lines_in, size_of
from tui.log.lines import LogLines

PROGRAM = Path(sys.executable).parent / "stoke"
PARTS = [b"%07d %s" % (number, b"x" * 99_992) for number in range(1000)]
PRINTS_THEM = """
import sys
for number in range(1000):
    sys.stdout.buffer.write(b"%07d %s" % (number, b"x" * 99_992))
sys.stdout.buffer.write(b"needle\\nafter\\n")
"""


def test_f05_a_line_of_100_mb_is_complete_in_every_reader(lab: Lab, tmp_path: Path) -> None:
    if lab.backend.name == "argo":
        pytest.skip("a node rotates a log at some 10 MB and serves its newest file")
    expected = hashlib.sha256(b"".join([*PARTS, b"needle\nafter\n"])).hexdigest()
    job = lab.submit(PRINTS_THEM, use_cache=False)
    lab.follow(job)
    folder = job_dir(job.id)
    assert size_of(folder) == (100_000_013, 2)
    assert digest(folder / "log") == expected

    with open(tmp_path / "copied", "wb") as copied:
        subprocess.run([PROGRAM, "logs", job.id], stdout=copied, check=True)
    assert digest(tmp_path / "copied") == expected
    save(folder, tmp_path / "saved")
    assert digest(tmp_path / "saved") == expected
    matches = Matches(folder, Query("needle"))
    matches.scan()
    assert list(matches.rows) == [0]
    window = LogLines(folder)
    assert window.update() == 2
    drawn = window.load(0).text
    assert drawn.startswith("0000000 xx") and drawn.endswith("xxneedle")
    assert "99,967,239 bytes" in drawn
    window.close()


def test_c15_a_job_has_no_terminal_and_its_bytes_pass_unchanged(lab: Lab) -> None:
    """On one, the engine would put line ends and timestamps into what it prints."""
    code = (
        "import os, sys\n"
        "print(sys.stdout.isatty(), sys.stderr.isatty(), flush=True)\n"
        "os.write(1, b'x' * 40_000 + b'\\r\\n\\n10%\\r20%\\n')\n"
    )
    done = lab.run(code, use_cache=False)
    assert done.stdout == b"False False\n" + b"x" * 40_000 + b"\r\n\n10%\r20%\n"


@pytest.mark.parametrize("unbuffered", [False, True])
def test_lines_of_both_streams_stay_in_order(lab: Lab, unbuffered: bool) -> None:
    """A progress bar on stderr is erased, makes room for a line on stdout, and is drawn again."""
    code = (
        "import sys, time\n"
        "for number in range(0, 300, 3):\n"
        "    time.sleep(0.02)\n"  # its work
        "    sys.stderr.write(f'{number} clear\\r'); sys.stderr.flush()\n"
        "    print(number + 1)\n"
        "    sys.stderr.write(f'{number + 2} bar\\r'); sys.stderr.flush()\n"
    )
    env = {"PYTHONUNBUFFERED": "1"} if unbuffered else {}
    job = lab.submit(code, use_cache=False, env=env)
    lab.follow(job)
    log = b"".join(line.text for line in lines_in(job_dir(job.id)))
    assert [int(number) for number in re.findall(rb"\d+", log)] == list(range(300))


def test_a_part_of_a_line_is_there_while_the_job_runs(lab: Lab) -> None:
    code = "import time; print('10%', end='', flush=True); time.sleep(600)"
    job = lab.submit(code, use_cache=False)
    tracker = lab.track(job)
    lab.until_output(job, b"10%")
    tracker.close()
    lab.backend.stop(job.id, 0)
    assert lab.finish(job).stdout == b"10%"


@pytest.mark.parametrize("size", [16 * 1024 - 1, 16 * 1024, 40_000])
def test_c12_a_long_last_line_without_an_end_gets_none(lab: Lab, size: int) -> None:
    code = f"import os; os.write(1, b'first\\n' + b'x' * {size}); os.write(2, b'y' * {size})"
    done = lab.run(code, use_cache=False)
    assert (done.stdout, done.stderr) == (b"first\n" + b"x" * size, b"y" * size)


def digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
