"""Projects through the commands: what is recorded, shown, rendered, compared and run again."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoke.files.paths import state_dir
from stoke.history.database import History
from stoke.project.manifest_store import read_manifest
from tests.cli.conftest import Stoke, job_count, only_job
from tests.hints import command, filled, is_hint
from tests.lab import until
from tests.terminals import PROGRAM

FILES = {
    "stoke.toml": "# The root of a project.\n",
    "src/train.py": "print('hello')\n",
    "src/helper.py": "x = 1\n",
    "data.csv": "1,2\n",
    ".env": "TOKEN=hunter2\n",
}


@pytest.fixture
def root(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = own_home / "project"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.chdir(root)
    return root


def hint_of(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode().partition("hint: ")[2].strip()


def project_of(job_id: str) -> dict[str, Any]:
    with History() as history:
        found: dict[str, Any] = json.loads(history.spec(job_id) or "{}")["project"]
    return found


def test_a_job_records_its_snapshot(stoke: Stoke, root: Path) -> None:
    done = stoke("run", "src/train.py")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    job = only_job()
    project = project_of(job.id)
    assert project["root"] == str(root) and project["script"] == "src/train.py"
    assert (project["directory"], project["files"]) == (".", 4)
    manifest = read_manifest(project["digest"])
    assert manifest is not None
    assert [file.path for file in manifest.files] == sorted(set(FILES) - {".env"})
    shown = stoke("show", job.id).stdout.decode()
    assert f"{root} (4 files" in shown and project["digest"][:12] in shown
    assert "src/train.py" in shown
    (note,) = json.loads(stoke("show", job.id, "--json").stdout)["notes"]
    assert note["text"] == "1 file that looks like a secret was left out: .env"
    assert b"1 file that looks like a secret was left out: .env" in done.stderr
    assert b"hunter2" not in b"".join(
        file.read_bytes() for file in state_dir().rglob("*") if file.is_file()
    )


def test_code_edits_keep_the_keys_of_the_environment(stoke: Stoke, root: Path) -> None:
    for text in ("print(1)\n", "print(2)\n"):
        (root / "src/train.py").write_text(text)
        assert stoke("run", "-q", "src/train.py").returncode == 0
    assert stoke("run", "-q", "--no-folder", "src/train.py").returncode == 0
    with History() as history:
        jobs = history.list()
    assert len({job.request_hash for job in jobs}) == 1
    projects = [project_of(job.id) for job in jobs]
    assert len({project and project["digest"] for project in projects}) == 3


def test_a_script_of_no_project_has_no_snapshot(stoke: Stoke, own_home: Path) -> None:
    (own_home / "alone.py").write_text("print('alone')\n")
    assert stoke("run", "-q", "alone.py").stdout == b"alone\n"
    assert stoke("run", "-q", "-c", "print('code')").stdout == b"code\n"
    assert stoke("run", "-q", "-", stdin=b"print('in')").stdout == b"in\n"
    with History() as history:
        assert [project_of(job.id) for job in history.list()] == [None] * 3
    assert not (state_dir() / "projects").exists()


def test_render_files_lists_what_travels(stoke: Stoke, root: Path) -> None:
    (root / "data.csv").write_text("x" * 2048)
    done = stoke("render", "files", "src/train.py")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    assert "2.0 KiB  data.csv" in lines
    assert any(line.split() == [".env", "looks", "like", "a", "secret"] for line in lines)
    document = json.loads(stoke("render", "files", "--json", "--include", ".env").stdout)
    assert {file["path"] for file in document["files"]} == set(FILES)
    assert document["bytes"] == sum(file["bytes"] for file in document["files"])
    assert document["left_out"] == []
    assert job_count(root.parent) == 0


def test_render_files_of_a_script_alone(stoke: Stoke, own_home: Path) -> None:
    (own_home / "alone.py").write_text("pass\n")
    done = stoke("render", "files", "alone.py")
    assert (done.returncode, done.stdout) == (0, b"") and b"only the code travels" in done.stderr
    assert json.loads(stoke("render", "files", "--json", "alone.py").stdout)["root"] is None


def test_above_the_limit_the_hint_makes_it_fit(stoke: Stoke, root: Path) -> None:
    with (root / "big [1].bin").open("wb") as file:
        file.truncate(60 * 1024**2)
    done = stoke("run", "src/train.py")
    assert done.returncode == 2 and b"big [1].bin 60.0 MiB" in done.stderr
    assert job_count(root.parent) == 0
    exclude, size = filled(
        hint_of(done),
        "leave out what the job does not need: {}; or raise the limit: "
        "export STOKE_PROJECT__MAX_SIZE={}; or send no files: --no-folder",
    )
    assert stoke("run", "-q", *shlex.split(exclude), "src/train.py").stdout == b"hello\n"
    assert stoke("run", "-q", "--no-folder", "src/train.py").stdout == b"hello\n"
    shown = stoke("render", "files", "src/train.py")
    assert shown.returncode == 0 and b"this would be refused" in shown.stderr
    env = {"STOKE_PROJECT__MAX_SIZE": size}
    shown = stoke("render", "files", "src/train.py", env=env)
    assert b"refused" not in shown.stderr


def test_what_stoke_stores_in_the_project_never_travels(stoke: Stoke, root: Path) -> None:
    env = {"STOKE_STATE_DIR": "state", "STOKE_CACHE_DIR": str(root / "src/cache")}
    for _ in range(2):
        done = stoke("run", "--include", "*", "src/train.py", env=env)
        assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    listed = json.loads(
        stoke("render", "files", "--json", "--include", "state/**", "src/train.py", env=env).stdout
    )
    assert {file["path"] for file in listed["files"]} == set(FILES) - {".env"}
    assert {entry["path"] for entry in listed["left_out"]} == {".env", "src/cache/", "state/"}


@pytest.mark.parametrize("how", ["code", "stdin"])
def test_a_line_of_code_runs_without_a_project_that_is_too_large(
    stoke: Stoke, root: Path, how: str
) -> None:
    with (root / "big.bin").open("wb") as file:
        file.truncate(60 * 1024**2)

    def run(code: str, *options: str) -> subprocess.CompletedProcess[bytes]:
        words, stdin = (["-c", code], b"") if how == "code" else (["-"], code.encode())
        return stoke("run", *options, *words, stdin=stdin)

    done = run("print('ran')")
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
    (option,) = filled(
        done.stderr.decode().splitlines()[0],
        "stoke: the project is too large to travel with a line of code (5 files with 60.0 MiB), "
        "which runs without it; send it: {}",
    )
    assert project_of(only_job().id) is None
    # What names the files or imports one needs them.
    for refused in (run("print(1)", *shlex.split(option)), run("import src.helper")):
        assert refused.returncode == 2 and b"the largest: big.bin 60.0 MiB" in refused.stderr
    shown = stoke("render", "files", "-c", "print(1)")
    assert b"which would run without these files" in shown.stderr
    script = stoke("render", "script", "-c", "print('alone')").stdout
    assert subprocess.run([sys.executable, "-"], input=script, capture_output=True).stdout == (
        b"alone\n"
    )


def test_a_line_of_code_runs_without_a_project_of_many_files(stoke: Stoke, root: Path) -> None:
    for number in range(10_001):
        (root / f"{number}.txt").touch()
    done = stoke("run", "-c", "print('ran')")
    assert (done.returncode, done.stdout) == (0, b"ran\n"), done.stderr
    assert b"(more than 10,000 files)" in done.stderr
    refused = stoke("render", "files", "--json", "-c", "import src.helper")
    assert len(json.loads(refused.stdout)["files"]) > 10_000 and refused.stderr == b""


def test_rerun_has_the_recorded_files_and_fresh_the_current_ones(stoke: Stoke, root: Path) -> None:
    assert stoke("run", "-q", "src/train.py").returncode == 0
    first = only_job().id
    assert stoke("rerun", first, "-q").stdout == b"hello\n"
    with History() as history:
        again = next(job.id for job in history.list() if job.id != first)
    assert project_of(again) == project_of(first)
    (root / "src/helper.py").write_text("x = 2\n")
    (root / "src/train.py").write_text("print('changed')\n")
    (root / "data.csv").unlink()
    assert stoke("rerun", first, "-q").stdout == b"hello\n"  # The cache has them.
    assert stoke("cache", "clear", "-b", "local", "--yes").returncode == 0
    refused = stoke("rerun", first, "-q")
    assert refused.returncode == 2
    assert b"2 of the snapshot's files changed or disappeared since" in refused.stderr
    assert b"data.csv, src/helper.py" in refused.stderr
    hint = is_hint(hint_of(refused), "take the folder as it is now: stoke rerun JOB --fresh")
    words = [word.replace("JOB", first) for word in command(hint)]
    assert stoke(*words, "-q").stdout == b"changed\n"
    # The script's own content is in the history.
    (root / "src/helper.py").write_text(FILES["src/helper.py"])
    (root / "data.csv").write_text(FILES["data.csv"])
    assert stoke("rerun", first, "-q").stdout == b"hello\n"


def test_fresh_needs_a_project(stoke: Stoke, own_home: Path) -> None:
    assert stoke("run", "-q", "-c", "print(1)").returncode == 0
    done = stoke("rerun", only_job().id, "--fresh")
    assert done.returncode == 2 and b"the job had no project" in done.stderr
    is_hint(hint_of(done), "run its request as it was: leave out --fresh")
    assert stoke("rerun", only_job().id, "-q").stdout == b"1\n"


def test_removing_the_last_job_removes_the_manifest(stoke: Stoke, root: Path) -> None:
    assert stoke("run", "-q", "src/train.py").returncode == 0
    assert stoke("run", "-q", "src/train.py").returncode == 0
    manifests = state_dir() / "projects/manifests"
    with History() as history:
        ids = [job.id for job in history.list()]
    assert len(list(manifests.iterdir())) == 1
    assert stoke("rm", ids[0]).returncode == 0
    assert len(list(manifests.iterdir())) == 1
    assert stoke("rm", ids[1]).returncode == 0
    assert not list(manifests.iterdir())


def test_no_pack_stays_behind(stoke: Stoke, root: Path) -> None:
    assert stoke("run", "-q", "src/train.py").returncode == 0
    assert not list((state_dir() / "projects/packs").iterdir())


def test_the_pack_of_a_killed_client_is_removed_by_the_next(stoke: Stoke, root: Path) -> None:
    for number in range(3):
        (root / f"{number}.bin").write_bytes(os.urandom(15 * 1024**2))
    packs = state_dir() / "projects/packs"

    def size() -> int:
        return sum(file.stat().st_size for file in packs.iterdir()) if packs.is_dir() else 0

    client = subprocess.Popen([PROGRAM, "run", "src/train.py"], stderr=subprocess.DEVNULL)
    until(lambda: size() > 1024**2, "the pack grows")
    client.kill()
    client.wait()
    assert size()
    done = stoke("run", "src/train.py")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    assert not list(packs.iterdir())


def test_rendered_json_takes_the_folder_as_it_is_when_submitted(stoke: Stoke, root: Path) -> None:
    rendered = stoke("render", "json", "src/train.py").stdout
    project = json.loads(rendered)["project"]
    assert project["digest"] is None and project["root"] == str(root)
    (root / "src/new.py").write_text("")
    (root / "src/train.py").write_text("print('edited since')\n")
    done = stoke("submit", "-q", "-", stdin=rendered)
    # The code is part of the JSON, the other files are not.
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done.stderr
    manifest = read_manifest(project_of(only_job().id)["digest"])
    assert manifest is not None and "src/new.py" in {file.path for file in manifest.files}
    moved = json.loads(rendered)
    moved["project"]["root"] = str(root / "elsewhere")
    done = stoke("submit", "-", stdin=json.dumps(moved).encode())
    assert done.returncode == 2 and b"elsewhere does not exist" in done.stderr
    is_hint(
        hint_of(done), "name the folder as root in the request's project, or set project to null"
    )
    alone = json.dumps({**moved, "project": None}).encode()
    assert stoke("submit", "-q", "-", stdin=alone).stdout == b"hello\n"
    moved["project"]["root"] = "/"
    done = stoke("submit", "-", stdin=json.dumps(moved).encode())
    assert done.returncode == 2 and b"which is never sent" in done.stderr
    moved["project"]["root"] = str(root)
    moved["project"]["digest"] = "0" * 64
    done = stoke("submit", "-", stdin=json.dumps(moved).encode())
    assert done.returncode == 2 and b"is not on this machine" in done.stderr
    is_hint(
        hint_of(done),
        "take the folder as it is now: stoke rerun JOB --fresh; in JSON, set digest to null",
    )
    moved["project"]["digest"] = None
    assert stoke("submit", "-q", "-", stdin=json.dumps(moved).encode()).stdout == b"hello\n"


@pytest.mark.parametrize(
    ("field", "value"),
    [("root", "relative"), ("script", "../x.py"), ("directory", "/etc"), ("digest", "x")],
)
def test_a_project_in_json_stays_inside_its_root(
    stoke: Stoke, root: Path, field: str, value: str
) -> None:
    request = {"code": "pass", "project": {"root": str(root), field: value}}
    done = stoke("submit", "-", stdin=json.dumps(request).encode())
    assert done.returncode == 2 and f"project.{field}".encode() in done.stderr


def test_compare_names_the_files_that_differ(stoke: Stoke, root: Path) -> None:
    (root / "link").symlink_to("data.csv")
    assert stoke("run", "-q", "--name", "one", "src/train.py").returncode == 0
    (root / "src/helper.py").write_text("x = 20\n")
    (root / "data.csv").unlink()
    (root / "new.csv").write_text("3\n")
    (root / "stoke.toml").chmod(0o755)
    (root / "link").unlink()
    (root / "link").symlink_to("new.csv")
    assert stoke("run", "-q", "--name", "two", "src/train.py").returncode == 0
    with History() as history:
        two, one = (job.id for job in history.list())
    document = json.loads(stoke("compare", one, two, "--json").stdout)
    files = [tuple(file.values()) for file in document["files"]]
    assert files == [
        ("data.csv", 4, None, "file", None, "removed"),
        ("link", 0, 0, "link to data.csv", "link to new.csv", "changed"),
        ("new.csv", None, 2, None, "file", "added"),
        ("src/helper.py", 6, 7, "file", "file", "changed"),
        ("stoke.toml", 25, 25, "file", "executable", "changed"),
    ]
    assert not [one for one in document["spec"] if one["what"].startswith("project.")]
    shown = stoke("compare", one, two).stdout.decode()
    assert "- data.csv 4 B" in shown and "~ src/helper.py 6 B -> 7 B" in shown
    assert "~ link link to data.csv -> link to new.csv" in shown
    assert "~ stoke.toml file 25 B -> executable 25 B" in shown
    same = stoke("compare", one, one).stdout.decode()
    assert "files: the same" in same


def test_folder_options_are_checked(stoke: Stoke, root: Path) -> None:
    for words in (["--folder", "x"], ["--include", "x"], ["--exclude", "x"]):
        done = stoke("run", "--no-folder", *words, "src/train.py")
        assert done.returncode == 2 and b"--no-folder" in done.stderr
    done = stoke("run", "--folder", "missing", "src/train.py")
    assert done.returncode == 2 and b"missing is no folder" in done.stderr
    for field in ("include", "exclude"):
        done = stoke("run", f"--{field}", "[z-a]", "src/train.py")
        assert done.returncode == 2 and f"{field}: ".encode() in done.stderr
        filled(hint_of(done), "write it as in .gitignore: --{} 'data/*.csv'")
        assert stoke("render", "files", f"--{field}", "data/*.csv", "src/train.py").returncode == 0
    assert job_count(root.parent) == 0


def test_names_in_the_listing_cannot_act_on_the_terminal(stoke: Stoke, root: Path) -> None:
    (root / "a\x1b[31m\nred").write_text("")
    (root / os.fsdecode(b"\xff")).write_text("")
    done = stoke("render", "files", "src/train.py")
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert stoke("render", "files", "--json", "src/train.py").stdout.isascii()
    os.symlink("/etc", root / "out\x1b[31m")
    assert b"\x1b" not in stoke("run", "src/train.py").stderr


def test_the_project_of_a_hook_is_the_one_of_its_folder(stoke: Stoke, root: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    done = stoke(
        "render", "files", "--json", "src/train.py", env={"GIT_DIR": str(root / "missing")}
    )
    assert {file["path"] for file in json.loads(done.stdout)["files"]} == set(FILES) - {".env"}


def test_a_rendered_script_brings_the_files(stoke: Stoke, root: Path, tmp_path: Path) -> None:
    (root / "src/train.py").write_text(
        "import helper, pathlib\nprint(helper.x, pathlib.Path('data.csv').read_text())\n"
    )
    rendered = stoke("render", "script", "src/train.py")
    assert rendered.returncode == 0, rendered.stderr
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-I", "-", "--cache", str(tmp_path / "cache")],
            input=rendered.stdout,
            capture_output=True,
            cwd="/",
        )
        assert (done.returncode, done.stdout) == (0, b"1 1,2\n\n"), done.stderr
    (root / "noise").write_bytes(os.urandom(9 * 1024**2))
    refused = stoke("render", "script", "src/train.py")
    assert refused.returncode == 2 and b"a script holds at most 8.0 MiB" in refused.stderr
    is_hint(
        hint_of(refused),
        "leave some out with --exclude (stoke render files shows their sizes), or all: --no-folder",
    )
    assert stoke("render", "script", "--exclude", "noise", "src/train.py").returncode == 0
    assert stoke("render", "script", "--no-folder", "src/train.py").returncode == 0


def test_rendered_manifests_name_the_snapshot_and_say_what_they_lack(
    stoke: Stoke, root: Path, tmp_path: Path
) -> None:
    no_engine = {"DOCKER_HOST": f"unix://{tmp_path}/no.sock"}
    done = stoke("render", "docker", "src/train.py", env=no_engine)
    assert done.returncode == 0, done.stderr
    assert b"left out: the files of the project; stoke run sends them" in done.stderr


def test_a_python_project_is_installed_for_its_job(stoke: Stoke, root: Path) -> None:
    (root / "pyproject.toml").write_text(
        "[project]\nname = 'shop'\nversion = '1.5'\n[project.scripts]\nshop = 'shop:main'\n"
    )
    (root / "src/shop").mkdir()
    (root / "src/shop/__init__.py").write_text(
        "from importlib.metadata import version\ndef main(): print('first', version('shop'))\n"
    )
    done = stoke("run", "-q", "--exec", "shop")
    assert (done.returncode, done.stdout) == (0, b"first 1.5\n"), done.stderr
    job = only_job().id
    listed = json.loads(stoke("render", "files", "--json", "--exec", "shop").stdout)
    assert ".stoke/bin/shop" in {file["path"] for file in listed["files"]}
    source = (root / "src/shop/__init__.py").read_text()
    (root / "src/shop/__init__.py").write_text(source.replace("first", "second"))
    assert stoke("rerun", job, "-q", "--fresh").stdout == b"second 1.5\n"
    rendered = stoke("render", "json", "--exec", "shop").stdout
    assert stoke("submit", "-q", "-", stdin=rendered).stdout == b"second 1.5\n"
