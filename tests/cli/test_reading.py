"""What `stoke run` reads at submit: requirements files, locks, code in any encoding, arguments."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.cli.conftest import Stoke, job_count, only_job
from tests.package_index import PackageIndex, wheel

VERSIONS = "import alpha, beta; print(alpha.version, beta.version)"
NOTEBOOK = '{"cells": [{"cell_type": "code", "source": ["print(1)"]}], "nbformat": 4}'
SHOWS_ARGUMENTS = "import sys; print(sys.argv[1:])"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


# --- requirements files --------------------------------------------------------------------------


def test_constraints_and_nested_files_are_read(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    (here / "limits.txt").write_text("alpha[more]<2\n")
    (here / "base.txt").write_text("-c limits.txt\nbeta\n")
    (here / "top.txt").write_text("-r base.txt\n")
    done = stoke("run", "-r", "top.txt", "-c", VERSIONS)
    assert done.stdout == b"1.0 1.0\n", done.stderr
    shown = stoke("show", only_job().id).stdout.decode()
    assert "alpha[more]<2" in shown and "constraints" in shown
    # Without the constraint it is another environment.
    (here / "limits.txt").write_text("")
    assert stoke("run", "-q", "-r", "top.txt", "-c", VERSIONS).stdout == b"2.0 1.0\n"
    # And the same one as JSON, with the field that says the same.
    request = {"code": VERSIONS, "dependencies": ["beta"], "constraints": "alpha<2"}
    done = stoke("submit", "-q", "-", stdin=json.dumps(request).encode())
    assert done.stdout == b"1.0 1.0\n", done.stderr


def test_a_constraint_that_cannot_be_met_says_so(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    (here / "r.txt").write_text("-c limits.txt\nbeta\n")
    (here / "limits.txt").write_text("alpha<1\n")
    done = stoke("run", "-r", "r.txt", "-c", "1")
    assert done.returncode == 125
    assert b"alpha<1" in done.stderr


def test_a_hash_in_a_constraint_is_kept_to(stoke: Stoke, index: PackageIndex, here: Path) -> None:
    (here / "r.txt").write_text("-c limits.txt\nbeta\n")
    (here / "limits.txt").write_text(f"alpha==1.0 --hash=sha256:{'0' * 64}\n")
    done = stoke("run", "-r", "r.txt", "-c", "1")
    assert done.returncode == 125
    assert b"none of the hashes given for alpha" in done.stderr


def test_two_files_packages_and_standard_input_all_count(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    index.add("gamma", "3.0")
    (here / "a.txt").write_text("alpha==1.0\n")
    (here / "b.txt").write_text("beta\n")
    code = "import gamma; " + VERSIONS
    arguments = ["run", "-q", "-r", "a.txt", "-r", "b.txt", "-w", "gamma", "-c", code]
    assert stoke(*arguments).stdout == b"1.0 1.0\n"
    done = stoke("run", "-q", "-r", "-", "-r", "b.txt", "-c", VERSIONS, stdin=b"alpha<2\n")
    assert done.stdout == b"1.0 1.0\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["-c", "1", "-c", "2"], "-c can be given once only"),
        (["-c", "1", "--lock", "a", "--lock", "b"], "--lock can be given once only"),
        (["-c", "1", "--index", "https://a.b", "--index", "https://c.d"], "--index can be given"),
        (["-r", "-", "-"], "read once only"),
        (["-c", "1", "-r", "-", "-r", "-"], "read once only"),
    ],
)
def test_a_second_value_that_would_be_dropped_is_refused(
    stoke: Stoke, own_home: Path, arguments: list[str], what: str
) -> None:
    done = stoke("run", *arguments)
    assert done.returncode == 2 and what in done.stderr.decode()
    assert job_count(own_home) == 0


def test_the_last_of_two_settings_counts(stoke: Stoke) -> None:
    """A wrapper's setting can be overridden."""
    assert stoke("run", "-q", "--name", "a", "--name", "b", "-c", "1").returncode == 0
    assert only_job().name == "b"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "latin-1"])
def test_a_file_in_another_encoding_is_read(
    stoke: Stoke, index: PackageIndex, here: Path, encoding: str
) -> None:
    head = "# -*- coding: latin-1 -*-\r\n" if encoding == "latin-1" else ""
    (here / "r.txt").write_bytes(f"{head}alpha==1.0 # caf\xe9\r\nbeta\r\n".encode(encoding))
    assert stoke("run", "-q", "-r", "r.txt", "-c", VERSIONS).stdout == b"1.0 1.0\n"


def test_text_without_a_file_names_no_files_and_the_advice_works(
    stoke: Stoke, index: PackageIndex
) -> None:
    request = {"code": VERSIONS, "requirements": "beta\n-c limits.txt"}
    done = stoke("submit", "-", stdin=json.dumps(request).encode())
    assert done.returncode == 2 and b"requirements line 2" in done.stderr
    assert b"put its lines into the field constraints" in done.stderr
    request = {"code": VERSIONS, "requirements": "-r base.txt"}
    done = stoke("submit", "-", stdin=json.dumps(request).encode())
    assert done.returncode == 2 and b"paste its lines here" in done.stderr


# --- locks ---------------------------------------------------------------------------------------


def test_hashed_lines_are_a_lockfile_only_with_the_option_lock(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    sha = index.add("beta", "1.0", ["alpha"])
    (here / "r.txt").write_text(f"beta==1.0 --hash=sha256:{sha}\n")
    done = stoke("run", "-q", "-r", "r.txt", "-c", VERSIONS)
    assert done.stdout == b"2.0 1.0\n", done.stderr
    # With --lock the file is complete and is installed unchanged.
    code = (
        "import importlib.util as u; print([u.find_spec(n) is not None for n in ('alpha', 'beta')])"
    )
    done = stoke("run", "--json", "--lock", "r.txt", "-c", code)
    assert done.stderr.endswith(b"[False, True]\n") or b"[False, True]" in done.stderr
    document = json.loads(done.stdout)
    assert document["spec"]["locked"] is True
    # And stays so when it is submitted again, in either way.
    for again in (
        stoke("submit", "-q", "-", stdin=json.dumps(document["spec"]).encode()),
        stoke("rerun", "-q", document["id"]),
    ):
        assert again.stdout == b"[False, True]\n", again.stderr


def test_require_hashes_wants_them_for_every_package(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    hashes = {
        name: index.add(name, "1.0", needs) for name, needs in (("alpha", []), ("beta", ["alpha"]))
    }
    lines = {name: f"{name}==1.0 --hash=sha256:{sha}\n" for name, sha in hashes.items()}
    (here / "r.txt").write_text("--require-hashes\n" + lines["beta"])
    done = stoke("run", "-r", "r.txt", "-c", VERSIONS)
    assert done.returncode == 125
    assert b"alpha==2.0 is needed too and has no --hash" in done.stderr
    (here / "r.txt").write_text("--require-hashes\n" + lines["beta"] + lines["alpha"])
    assert stoke("run", "-q", "-r", "r.txt", "-c", VERSIONS).stdout == b"1.0 1.0\n"


def test_a_rendered_lock_and_a_pylock_are_complete(
    stoke: Stoke, index: PackageIndex, here: Path
) -> None:
    lock = stoke("render", "lock", "-w", "beta").stdout
    (here / "requirements.lock").write_bytes(lock)
    done = stoke("run", "-q", "--lock", "requirements.lock", "-c", VERSIONS)
    assert done.stdout == b"2.0 1.0\n", done.stderr
    packages = [("alpha", index.add("alpha", "1.0")), ("beta", index.add("beta", "1.0", ["alpha"]))]
    (here / "pylock.toml").write_text(
        'lock-version = "1.0"\ncreated-by = "test"\n'
        + "".join(
            f'[[packages]]\nname = "{name}"\nversion = "1.0"\n'
            f'wheels = [{{ name = "{name}-1.0-py3-none-any.whl", hashes = {{ sha256 = "{sha}" }} }}]\n'
            for name, sha in packages
        )
    )
    done = stoke("run", "-q", "--lock", "pylock.toml", "-c", VERSIONS)
    assert done.stdout == b"1.0 1.0\n", done.stderr


def test_an_empty_lock_is_not_sent_to_a_command_that_makes_an_empty_lock(
    stoke: Stoke, here: Path
) -> None:
    (here / "empty.lock").write_text("# nothing\n--no-index\n")
    done = stoke("run", "--lock", "empty.lock", "-c", "1")
    assert done.returncode == 2
    assert b"empty.lock names no packages" in done.stderr
    assert b"hint" not in done.stderr


@pytest.mark.parametrize("name", ["environment.yml", "poetry.lock", "pyproject.toml", "nb.ipynb"])
@pytest.mark.parametrize("option", ["-r", "--lock"])
def test_files_of_other_tools_are_refused_by_name(
    stoke: Stoke, own_home: Path, here: Path, name: str, option: str
) -> None:
    (here / name).write_text(NOTEBOOK if name == "nb.ipynb" else "x\n")
    done = stoke("run", option, name, "-c", "1")
    assert done.returncode == 2
    assert f"error: {name}: is a" in done.stderr.decode()
    assert job_count(own_home) == 0


# --- version control -----------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The address of a Git repository with the package `inner` in a folder of its own."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    source, served = tmp_path / "source", tmp_path / "served"
    (source / "sub").mkdir(parents=True)
    name = "inner-1.5-py3-none-any.whl"
    packed = base64.b64encode(wheel("inner", "1.5", ["alpha; extra == 'more'"])).decode()
    (source / "sub/backend.py").write_text(
        "import base64, os\n"
        "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
        f"    with open(os.path.join(folder, {name!r}), 'wb') as file:\n"
        f"        file.write(base64.b64decode({packed!r}))\n"
        f"    return {name!r}\n"
    )
    (source / "sub/pyproject.toml").write_text(
        "[build-system]\nrequires = []\nbuild-backend = 'backend'\nbackend-path = ['.']\n"
        "[project]\nname = 'inner'\nversion = '1.5'\noptional-dependencies = {more = ['alpha']}\n"
    )
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", "-C", str(source)]
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"], ["tag", "v1"]):
        subprocess.run([*git, *arguments], check=True)
    bare = served / "repo.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(source), str(bare)], check=True)
    subprocess.run(["git", "-C", str(bare), "update-server-info"], check=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"git+http://127.0.0.1:{server.server_address[1]}/repo.git"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "form", ["-e {}@v1#egg=inner[more]&subdirectory=sub", "inner[more] @ {}@v1#subdirectory=sub"]
)
def test_an_editable_of_version_control_is_installed(
    stoke: Stoke, index: PackageIndex, here: Path, repository: str, form: str
) -> None:
    (here / "r.txt").write_text(form.format(repository) + "\n")
    done = stoke(
        "run", "-q", "-r", "r.txt", "-c", "import alpha, inner; print(alpha.version, inner.version)"
    )
    assert done.stdout == b"2.0 1.5\n", done.stderr


# --- code ----------------------------------------------------------------------------------------

LATIN = "# -*- coding: latin-1 -*-\nprint('caf\xe9')\nraise ValueError('\xe9')  # na\xefve\n"


def see_that_it_prints_as_python_does(stoke: Stoke, here: Path, place: list[str]) -> None:
    (here / "latin.py").write_bytes(LATIN.encode("latin-1"))
    for done in (
        stoke("run", "-q", *place, "latin.py", env={"PYTHONIOENCODING": "utf-8"}),
        stoke("run", "-q", *place, "-", stdin=LATIN.encode("latin-1")),
    ):
        assert done.returncode == 1
        assert done.stdout.decode() == "café\n", done.stderr
        trace = done.stderr.decode()
        assert "    raise ValueError('é')  # naïve\n" in trace and "ValueError: é" in trace


def test_code_in_a_declared_encoding_prints_the_same_as_in_python(stoke: Stoke, here: Path) -> None:
    see_that_it_prints_as_python_does(stoke, here, [])


@pytest.mark.docker
def test_code_in_a_declared_encoding_does_so_in_a_container(
    stoke: Stoke, here: Path, docker_image: str, docker_scope: str
) -> None:
    place = ["-b", "docker", "--image", docker_image, "--scope", docker_scope]
    see_that_it_prints_as_python_does(stoke, here, place)


def test_the_same_code_as_json_prints_the_same(stoke: Stoke, here: Path) -> None:
    (here / "latin.py").write_bytes(LATIN.encode("latin-1"))
    rendered = stoke("render", "json", "latin.py").stdout
    done = stoke("submit", "-q", "-", stdin=rendered)
    assert done.stdout.decode() == "café\n"
    # As a shell may write it that redirects in UTF-16.
    (here / "request.json").write_bytes(rendered.decode().encode("utf-16"))
    assert stoke("submit", "-q", "request.json").stdout.decode() == "café\n"


@pytest.mark.parametrize("name", ["nb.ipynb", "nb.py"])
def test_a_notebook_never_succeeds_with_nothing_done(
    stoke: Stoke, own_home: Path, here: Path, name: str
) -> None:
    (here / name).write_text(NOTEBOOK)
    for done in (
        stoke("run", name),
        stoke("run", "-", stdin=NOTEBOOK.encode()),
        stoke("run", "-c", NOTEBOOK),
        stoke("submit", name),
        stoke("submit", "-", stdin=json.dumps({"code": NOTEBOOK}).encode()),
    ):
        told = done.stderr.decode()
        assert done.returncode == 2
        assert "is a Jupyter notebook" in told and "convert it: stoke render code" in told
    assert job_count(own_home) == 0


@pytest.mark.parametrize(
    "arguments", [["run"], ["submit"], ["run", "-c", "1", "-r"], ["run", "-c", "1", "--lock"]]
)
def test_endless_input_is_refused(stoke: Stoke, own_home: Path, arguments: list[str]) -> None:
    done = stoke(*arguments, "/dev/zero")
    assert done.returncode == 2
    assert b"error: /dev/zero: is longer than" in done.stderr
    assert job_count(own_home) == 0


def test_a_pipe_is_read_to_its_end(stoke: Stoke, here: Path) -> None:
    os.mkfifo(here / "pipe.py")

    def write() -> None:
        with open("pipe.py", "w") as pipe:
            pipe.write("print('piped')")

    threading.Thread(target=write, daemon=True).start()
    assert stoke("run", "-q", "pipe.py").stdout == b"piped\n"


# --- the script's arguments ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "script"),
    [
        (["s.py", "--epochs", "3", "a b", ""], ["--epochs", "3", "a b", ""]),
        (["s.py", "--", "-c", "x.yaml", "--name", "run1"], ["-c", "x.yaml", "--name", "run1"]),
        (["s.py", "--", "--", "x"], ["--", "x"]),
        (["s.py", "sub", "--", "-b", "x"], ["sub", "--", "-b", "x"]),
        (["--", "s.py", "-b", "x"], ["-b", "x"]),
        (["s.py", "--help", "-h", "-1", "-"], ["--help", "-h", "-1", "-"]),
        (["--env=A=1", "-qb", "local", "s.py", "x"], ["x"]),
        (["-c", SHOWS_ARGUMENTS, "--", "-b"], ["-b"]),
        (["-c", SHOWS_ARGUMENTS, "a", "--epochs"], ["a", "--epochs"]),
        (["-c", SHOWS_ARGUMENTS, "--name", "n", "a"], ["a"]),
    ],
)  # fmt: skip
def test_the_words_behind_the_file_are_the_scripts(
    stoke: Stoke, here: Path, arguments: list[str], script: list[str]
) -> None:
    (here / "s.py").write_text(SHOWS_ARGUMENTS)
    done = stoke("run", "-q", *arguments)
    assert done.stdout.decode() == f"{script}\n", done.stderr


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["train.py", "-c", "config.yaml", "--name", "run1"], "-c"),
        (["train.py", "--epochs", "3", "--name=run1"], "--name"),
        (["train.py", "-bdocker"], "-b"),
        (["train.py", "-n", "10"], "-n"),
        (["train.py", "-d"], "-d"),
        (["train.py", "-q"], "-q"),
        (["-c", "1", "a", "-b", "docker"], "-b"),
    ],
)
@pytest.mark.parametrize("command", [["run"], ["race"], ["render", "json"]])
def test_an_option_of_ours_behind_the_file_is_refused_and_the_advice_works(
    stoke: Stoke, own_home: Path, here: Path, command: list[str], arguments: list[str], option: str
) -> None:
    if command != ["run"] and option in {"-q", "-d"}:
        return
    (here / "train.py").write_text(SHOWS_ARGUMENTS)
    done = stoke(*command, *arguments)
    told = done.stderr.decode()
    assert done.returncode == 2 and f"{option} after " in told
    assert job_count(own_home) == 0
    if command == ["run"] and arguments[0] == "train.py":
        advised = told.strip().rpartition("arguments: ")[2].split()
        assert advised == ["train.py", "--", *arguments[1:]]
        assert stoke("run", "-q", *advised).stdout.decode() == f"{arguments[1:]}\n"
