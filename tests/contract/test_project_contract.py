"""Jobs with a project on every backend: their files, their start, and the stored contents."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from stoke.cache.volumes import Housekeeper
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.request.spec import JobSpec, Project
from tests.lab import Lab
from tests.snapshots import EMPTY_FOLDER, Link, run_project, sha256, snapshot, submit_project
from tui.log.code import places_above

LOOKS = b"""
import json, os, sys, helper
print(json.dumps({
    "argv": sys.argv, "path": sys.path[0], "cwd": os.getcwd(), "helper": helper.value,
    "data": open("data.csv").read(), "file": os.path.normpath(__file__),
}))
"""


def test_a_script_finds_its_project(lab: Lab) -> None:
    made = snapshot(
        {"pkg/main.py": LOOKS, "pkg/helper.py": b"value = 7", "work/data.csv": b"a,b\n"}
    )
    done = run_project(lab, made, ("script", "pkg/main.py"), directory="work", args=["x", "-y"])
    assert done.job.state is JobState.SUCCEEDED, done
    seen = json.loads(done.stdout)
    root = seen["cwd"].removesuffix("/work")
    assert seen == {
        "argv": ["../pkg/main.py", "x", "-y"],
        "path": f"{root}/pkg",
        "cwd": f"{root}/work",
        "helper": 7,
        "data": "a,b\n",
        "file": f"{root}/pkg/main.py",
    }
    assert done.phase("project").hit is False
    assert done.phase("project").bytes == sum(map(len, made.contents.values()))


def test_a_traceback_leads_to_the_file_on_this_machine(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg/helper.py").write_text("value = 1 / 0\n")
    made = snapshot({"pkg/main.py": b"import helper\n", "pkg/helper.py": b"value = 1 / 0\n"})
    done = run_project(lab, made, ("script", "pkg/main.py"))
    lines = done.stderr.decode().splitlines()
    place = places_above(reversed(lines))[0]
    spec = JobSpec(code="1", project=Project(root=str(tmp_path), script="pkg/main.py"))
    assert (place.file_of(spec, done.job.id), place.line) == (tmp_path / "pkg/helper.py", 1), done


ENTRIES = b"""
import os, subprocess, sys
print(subprocess.run(["./tool.sh", "given"], capture_output=True, text=True, check=True).stdout)
print(os.readlink("link"), open("link").read(), os.readlink("sub/up"), os.listdir("empty"))
print(oct(os.stat("tool.sh").st_mode & 0o100), oct(os.stat("main.py").st_mode & 0o100))
print(sorted(os.listdir(b"odd")))
"""


def test_modes_links_empty_folders_and_odd_names_arrive(lab: Lab) -> None:
    made = snapshot(
        {
            "main.py": ENTRIES,
            "tool.sh": (b"#!/bin/sh\necho tool $1\n", 0o755),
            "link": Link("sub/real"),
            "sub/real": b"linked",
            "sub/up": Link(".."),
            "empty": EMPTY_FOLDER,
            "odd/\udcff\n 'x'": b"",
            "odd/-rf": b"",
            "odd/-RF": b"",
        }
    )
    done = run_project(lab, made)
    assert done.stdout.splitlines() == [
        b"tool given",
        b"",
        b"sub/real linked .. []",
        b"0o100 0o0",
        rb"""[b'-RF', b'-rf', b"\xff\n 'x'"]""",
    ], done


def test_a_module_starts_with_the_working_directory_first(lab: Lab) -> None:
    made = snapshot(
        {
            "app/__init__.py": b"",
            "app/__main__.py": b"import os, sys; print(sys.path[0] == os.getcwd(), sys.argv[1:])",
        }
    )
    done = run_project(lab, made, ("module", "app"), args=["1"])
    assert done.stdout == b"True ['1']\n", done


def test_code_imports_from_the_working_directory(lab: Lab) -> None:
    made = snapshot({"sub/helper.py": b"value = 8", "lib/more.py": b"value = 9"})
    code = (
        "import helper, more, subprocess, sys\nprint(helper.value, more.value, flush=True)\n"
        "subprocess.run([sys.executable, '-c', 'import more; print(more.value)'], check=True)"
    )
    start = ("code", "")
    done = run_project(lab, made, start, directory="sub", import_path=("lib",), code=code)
    assert done.stdout == b"8 9\n9\n", done


def test_a_program_of_the_project_starts(lab: Lab) -> None:
    script = b"#!/usr/bin/env python3\nimport more, sys; print(more.value, sys.argv[1:])\n"
    made = snapshot({"bin/tool": (script, 0o755), "src/more.py": b"value = 3"})
    options = {"import_path": ("src",), "programs": ("bin",)}
    done = run_project(lab, made, ("program", "tool"), args=["a"], **options)
    assert done.stdout == b"3 ['a']\n", done
    missing = run_project(lab, made, ("program", "absent"), has_pack=False, **options)
    assert missing.job.exit_code == 125
    assert "there is no program absent" in missing.error["text"]


@pytest.mark.parametrize("start", [("script", "main.py"), ("module", "main"), ("program", "tool")])
def test_output_is_live_however_a_job_starts(lab: Lab, start: tuple[str, str]) -> None:
    code = b"import sys; print(type(sys.stdout.buffer).__name__)"
    made = snapshot({"main.py": code, "bin/tool": (b"#!/usr/bin/env python3\n" + code, 0o755)})
    assert run_project(lab, made, start, programs=("bin",)).stdout == b"LiveBuffer\n"


def test_the_users_own_pythonpath_comes_before_the_projects(lab: Lab) -> None:
    made = snapshot({"main.py": b"import x; print(x.y)", "a/x.py": b"y='a'", "b/x.py": b"y='b'"})
    done = run_project(lab, made, import_path=("a",), env={"PYTHONPATH": "b"})
    assert done.stdout == b"b\n", done


def test_a_second_job_receives_no_pack_and_has_its_own_copy(lab: Lab) -> None:
    code = (
        b"import os\nopen('data', 'a').write('!')\nprint(open('data').read(), sorted(os.listdir()))\n"
        b"os.makedirs('made/inside'); os.rename('folder/file', 'made/moved')"
    )
    made = snapshot({"main.py": code, "data": b"first", "folder/file": b"x"})
    for has_pack in (True, False):
        done = run_project(lab, made, has_pack=has_pack)
        assert done.stdout == b"first! ['data', 'folder', 'main.py']\n", done
        assert done.phase("project").hit is not has_pack
    assert done.phase("project").bytes == 0


def test_jobs_that_bring_the_same_files_at_once_both_get_them(lab: Lab) -> None:
    files = {f"data/{number}": b"%d" % number * 20_000 for number in range(40)}
    made = snapshot({**files, "main.py": b"import os; print(len(os.listdir('data')))"})
    jobs = [submit_project(lab, made) for _ in range(3)]
    ended = [lab.finish(job) for job in jobs]
    assert [done.stdout for done in ended] == [b"40\n"] * 3, ended
    again = run_project(lab, made, has_pack=False)
    assert (again.stdout, again.phase("project").hit) == (b"40\n", True)


def test_only_the_changed_file_is_sent(lab: Lab) -> None:
    before = snapshot({"main.py": b"print(1)", "data": b"d" * 10_000})
    run_project(lab, before)
    after = snapshot({"main.py": b"print(2)", "data": b"d" * 10_000})
    done = run_project(lab, after, pack=after.pack(without=before.contents))
    assert done.stdout == b"2\n", done
    assert (done.phase("project").bytes or 0) < 1000


@pytest.mark.parametrize("lost", ["file", "manifest"])
def test_a_missing_content_ends_the_job_before_its_code(lab: Lab, lost: str) -> None:
    made = snapshot({"main.py": b"print('ran')", "data": b"d"})
    lacks = sha256(b"d") if lost == "file" else made.manifest.digest
    done = run_project(lab, made, pack=made.pack(without=[lacks]))
    assert (done.stdout, done.job.exit_code) == (b"", 125)
    assert "no longer in the cache" in done.error["text"]
    # Follow the hint.
    assert done.error["hint"] == "submit the job again: stoke then sends all files of the project"
    assert run_project(lab, made).stdout == b"ran\n"


def test_snapshots_are_measured_apart_and_pruned(lab: Lab) -> None:
    made = snapshot({"main.py": b"print('ran')", "data": b"d" * 100_000})
    run_project(lab, made)
    with History() as history:
        housekeeper = Housekeeper(history, 0)
        (volume,) = [one for one in lab.backend.volumes() if one.scope == lab.scope]
        usage = housekeeper.usage(lab.backend, volume, lambda _: None)
        assert usage.bytes >= usage.snapshot_bytes > 100_000
        # Beside the snapshot, where jobs leave it there, the copy that the next one takes over.
        assert len(usage.snapshots) == (1 if lab.backend.name == "argo" else 2)
        pruned = housekeeper.prune(lab.backend, volume, lambda _: None, unused=0)
        assert (pruned.snapshots, pruned.trouble) == (1, None)
        assert pruned.bytes > 100_000
    gone = run_project(lab, made, has_pack=False)
    assert (gone.stdout, gone.job.exit_code) == (b"", 125)
    assert "no longer in the cache" in gone.error["text"]
    assert run_project(lab, made).stdout == b"ran\n"


COUNTS = b"""
import os
print(sum(os.path.getsize(os.path.join("data", name)) for name in os.listdir("data")))
"""


def test_fifty_megabytes_arrive_and_the_next_job_needs_nothing(lab: Lab) -> None:
    files = {f"data/{number}": random.Random(number).randbytes(2**19) for number in range(100)}
    made = snapshot({"main.py": COUNTS, **files})
    first = run_project(lab, made)
    assert first.stdout == b"52428800\n", first
    second = run_project(lab, made, has_pack=False)
    assert (second.stdout, second.phase("project").hit) == (b"52428800\n", True), second
