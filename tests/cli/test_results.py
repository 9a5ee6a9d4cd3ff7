"""`stoke results`: list, copy, compare and clear, as people type it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from stoke.files.paths import job_dir
from tests.cli.conftest import Stoke, only_job
from tests.hints import command, filled
from tests.terminals import Terminal

WRITES = """
import os, sys
top = os.environ["STOKE_RESULTS"]
open(top + "/a.csv", "w").write(sys.argv[1])
os.mkdir(top + "/d")
open(os.fsencode(top) + b"/d/\\xff\\x1b[2J", "w").write("odd")
os.symlink("/etc/passwd", top + "/link")
"""


def run(stoke: Stoke, name: str, word: str = "1,2") -> bytes:
    done = stoke("run", "-b", "local", "--name", name, "-c", WRITES, word)
    assert done.returncode == 0, done
    return done.stderr


def test_a_run_tells_of_results_and_they_are_listed_and_copied(
    stoke: Stoke, own_home: Path
) -> None:
    told = run(stoke, "train")
    job = only_job().id
    assert f"results: 2 files, 6 B (stoke results {job})".encode() in told
    listed = stoke("results", "train")
    assert b"a.csv" in listed.stdout and b"\x1b" not in listed.stdout + listed.stderr
    assert b"not collected: 'link': it is a symbolic link" in listed.stderr
    document = json.loads(stoke("results", "train", "--json").stdout)
    assert (document["job"], document["bytes"], document["refused_count"]) == (job, 6, 1)
    assert [file["path"] for file in document["files"]] == ["a.csv", "d/\udcff\x1b[2J"]
    assert stoke("results", "train", "-o", "out").returncode == 0
    assert Path("out/a.csv").read_text() == "1,2"
    Path("out/a.csv").write_text("mine")
    refused = stoke("results", "train", "-o", "out")
    assert refused.returncode == 2 and b"--force" in refused.stderr
    assert stoke("results", "train", "-o", "out", "--force").returncode == 0
    assert Path("out/a.csv").read_text() == "1,2"
    shown = stoke("show", "train")
    assert f"2 files, 6 B: stoke results {job}".encode() in shown.stdout
    assert json.loads(stoke("show", "train", "--json").stdout)["results"]["files"] == 2


def test_two_jobs_are_compared(stoke: Stoke) -> None:
    run(stoke, "first")
    run(stoke, "second", "1,2,3")
    compared = stoke("results", "first", "second")
    assert compared.stdout.startswith(b"~ a.csv  3 B 17f8af97ad4a -> 5 B "), compared
    assert b"1 difference, 1 file the same" in compared.stderr
    document = json.loads(stoke("results", "first", "second", "--json").stdout)
    assert [(one["path"], one["change"]) for one in document["files"]] == [("a.csv", "changed")]
    whole = stoke("compare", "first", "second")
    assert b"results:\n" + compared.stdout in whole.stdout
    in_compare = json.loads(stoke("compare", "first", "second", "--json").stdout)
    assert in_compare["results"] == document["files"]


def test_compare_names_the_job_whose_results_are_gone(stoke: Stoke) -> None:
    run(stoke, "first")
    run(stoke, "second")
    assert b"results: the same" in stoke("compare", "first", "second").stdout
    assert stoke("results", "--clear", "second", "--yes").returncode == 0
    told = stoke("compare", "first", "second").stdout.decode()
    (line,) = [line for line in told.splitlines() if line.startswith("results of")]
    assert line.startswith("results of second-")
    followed = stoke(*command(line.rpartition(": ")[2]))
    assert followed.returncode == 125 and b"were removed from this machine" in followed.stderr


def test_clear_asks_and_keeps_the_job(stoke: Stoke, terminal: Callable[..., Terminal]) -> None:
    run(stoke, "train")
    job = only_job().id
    refused = stoke("results", "--clear")
    assert refused.returncode == 2 and b"--yes" in refused.stderr
    asked = terminal("results", "--clear")
    asked.until(b"Remove them?")
    asked.type("y\n")
    assert asked.wait() == 0
    assert not (job_dir(job) / "results").exists()
    gone = stoke("results", "train")
    assert gone.returncode == 125 and b"were removed from this machine" in gone.stderr
    assert b"removed, by stoke results --clear" in stoke("show", "train").stdout
    assert stoke("results", "--clear", "--older-than", "1h", "--yes").returncode == 0


def test_the_oldest_results_go_first_beyond_the_budget(stoke: Stoke) -> None:
    big = "import os; open(os.environ['STOKE_RESULTS'] + '/x', 'wb').write(bytes(3_000_000))"
    env = {"STOKE_RESULTS__KEEP_MAX": "4m"}
    for name in ("old", "new"):
        assert stoke("run", "-b", "local", "--name", name, "-c", big, env=env).returncode == 0
    listed = [row["job"] for row in json.loads(stoke("results", "--json").stdout)]
    assert [job.rpartition("-")[0] for job in listed] == ["new"]
    assert b"results.keep_max" in stoke("results", "old").stderr


def test_rm_removes_results_and_a_running_job_has_none_yet(stoke: Stoke) -> None:
    run(stoke, "train")
    job = only_job().id
    assert stoke("rm", job).returncode == 0
    assert not job_dir(job).exists()
    waiting = stoke("run", "-d", "-b", "local", "--name", "w", "-c", "import time; time.sleep(60)")
    refused = stoke("results", waiting.stdout.decode().strip())
    assert refused.returncode == 2 and b"results are collected at its end" in refused.stderr
    hint = refused.stderr.decode().splitlines()[-1].removeprefix("hint: ")
    filled(hint, "wait for it: stoke logs -f {}")
    stoke("stop", "--now", "w")
    assert stoke(*command(hint)).returncode == 0
    assert stoke("results", "w").returncode == 0


def test_results_over_the_limit_stay_until_it_is_raised(stoke: Stoke) -> None:
    big = "import os; open(os.environ['STOKE_RESULTS'] + '/x', 'wb').write(bytes(3_000_000))"
    code = ("run", "-b", "local", "-c", big)
    assert stoke(*code, env={"STOKE_RESULTS__MAX_SIZE": "4m"}).returncode == 0
    low = {"STOKE_RESULTS__MAX_SIZE": "4m"}
    bigger = big.replace("3_000_000", "6_000_000")
    assert stoke("run", "-b", "local", "--name", "b", "-c", bigger, env=low).returncode == 0
    refused = stoke("results", "b", env=low)
    hint = refused.stderr.decode().splitlines()[-1].removeprefix("hint: ")
    filled(
        hint,
        "raise the limit (STOKE_RESULTS__MAX_SIZE=50g) and run: stoke results {}; or give them up: "
        "stoke rm {}",
    )
    name, _, value = hint.partition("(")[2].partition(")")[0].partition("=")
    job = hint.partition("stoke results ")[2].partition(";")[0]
    assert b"5.7 MiB" in stoke("results", job, env={name: value}).stdout


def test_a_rerun_finds_the_checkpoint_of_a_job_without_a_name(stoke: Stoke) -> None:
    code = "import os; d = os.environ['STOKE_CHECKPOINT']; print(len(os.listdir(d)))\n" + (
        "open(d + '/x', 'w').close()"
    )
    assert stoke("run", "-b", "local", "-c", code).stdout == b"0\n"
    job = only_job().id
    assert stoke("rerun", job).stdout == b"1\n"
    assert stoke("run", "-b", "local", "-c", code).stdout == b"0\n"


def test_a_job_that_runs_stoke_is_not_confused_by_its_own_folders(stoke: Stoke) -> None:
    env = {"STOKE_RESULTS": "/mnt/results", "STOKE_CHECKPOINT": "/cache/x"}
    done = stoke("run", "-q", "-b", "local", "-c", "print(1)", env=env)
    assert (done.stdout, done.stderr) == (b"1\n", b"")
