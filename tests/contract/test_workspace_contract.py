"""Workspaces, on every backend: files outlive jobs, are copied exactly, and lead nowhere else."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from stoke.backend.capabilities import KeepsWorkspaces
from stoke.errors import EngineError, RequestError
from stoke.history.database import History
from stoke.history.job import JobState
from stoke.remote.common.trees import remove_tree
from stoke.workspaces.copying import copy_in, copy_out
from stoke.workspaces.keeper import WorkspaceKeeper
from tests.contract.conftest import open_lab
from tests.lab import Lab, until
from tests.package_index import PackageIndex

HERE = "import os\nhere = os.environ['STOKE_WORKSPACE']\n"
WRITES = HERE + "print('kept', file=open(here + '/out.txt', 'w'))\n"
READS = HERE + "print(open(here + '/out.txt').read(), end='')\n"
WAITS = HERE + (
    "import time\nprint('holding', flush=True)\n"
    "while not os.path.exists(here + '/go'): time.sleep(0.02)\n"
)


def silent(_: str) -> None:
    """Show no progress."""


class Workspaces:
    """The workspaces of one test, which are gone after it."""

    def __init__(self, lab: Lab) -> None:
        self.history = History()
        self.keeper = WorkspaceKeeper(lab.backend, self.history)
        self._prefix = f"Test_{secrets.token_hex(4)}"

    def name(self, end: str = "one") -> str:
        return f"{self._prefix}.{end}"

    def mine(self) -> list[str]:
        return [one.name for one in self.keeper.all() if one.name.startswith(self._prefix)]

    def put(self, source: Path, path: str, end: str = "one") -> list[str]:
        workspace = self.keeper.find(self.name(end))
        return list(copy_in(self.keeper, source, workspace, path, silent).problems)

    def get(self, path: str, target: Path, end: str = "one") -> list[str]:
        workspace = self.keeper.find(self.name(end))
        return list(copy_out(self.keeper, workspace, path, target, silent).problems)


@pytest.fixture
def spaces(lab: Lab) -> Iterator[Workspaces]:
    spaces = Workspaces(lab)
    yield spaces
    for name in spaces.mine():
        with suppress(EngineError, RequestError):
            spaces.keeper.remove(spaces.keeper.find(name))
    spaces.history.close()


def a_tree(top: Path) -> Path:
    """A folder with everything that a copy has to bring as it is."""
    top.mkdir()
    (top / "binary").write_bytes(bytes(range(256)) * 5000 + os.urandom(1_000_003))
    (top / "program").write_text("#!/bin/sh\necho ran\n")
    (top / "program").chmod(0o755)
    (top / "secret").write_text("x")
    (top / "secret").chmod(0o600)
    (top / "empty file").touch()
    (top / "empty folder").mkdir()
    (top / "deep" / "er").mkdir(parents=True)
    (top / "deep" / "er" / ("n" * 255)).write_text("long name")
    (top / "deep" / "link").symlink_to("../binary")
    (top / "-rf; echo $HOME").write_text("a name for a shell")
    Path(os.fsdecode(os.fsencode(top) + b"/caf\xe9\xff")).write_bytes(b"not UTF-8")
    os.utime(top / "binary", (1_500_000_000, 1_500_000_000))
    return top


def described(top: Path) -> dict[str, tuple[str, int, object]]:
    """Path to kind, mode and contents of everything below a folder."""
    found: dict[str, tuple[str, int, object]] = {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = Path(folder) / name
            mode = path.lstat().st_mode & 0o777
            where = str(path.relative_to(top))
            if path.is_symlink():
                found[where] = "link", 0, os.readlink(path)
            elif path.is_dir():
                found[where] = "folder", mode, None
            else:
                found[where] = "file", mode, path.read_bytes()
    return found


# ---------------------------------------------------------------------------- jobs


def test_files_outlive_their_job(lab: Lab, spaces: Workspaces) -> None:
    done = lab.run(WRITES, workspace=spaces.name())
    assert done.job.state is JobState.SUCCEEDED, done.stderr
    notes = [note.text for note in spaces.history.notes(done.job.id)]
    # Workspaces of other tests may be named as similar ones.
    assert any(note.startswith(f"workspace {spaces.name()}: new") for note in notes)
    done = lab.run(READS, workspace=spaces.name())
    assert done.stdout == b"kept\n", done.stderr
    assert [note.text for note in spaces.history.notes(done.job.id)] == []
    other = lab.run(READS, workspace=spaces.name("other"))
    assert other.job.exit_code == 1 and b"FileNotFoundError" in other.stderr


def test_it_is_the_working_directory_of_code_without_a_project(
    lab: Lab, spaces: Workspaces
) -> None:
    code = HERE + "print(os.path.samefile('.', here), here)"
    done = lab.run(code, workspace=spaces.name())
    same, where = done.stdout.split()
    assert same == b"True"
    assert (where == b"/workspace") is (lab.backend.name != "local")
    without = lab.run("import os; print(os.environ.get('STOKE_WORKSPACE'))")
    assert without.stdout == b"None\n"


def test_two_jobs_share_one_at_once(lab: Lab, spaces: Workspaces) -> None:
    first = lab.submit(WAITS, workspace=spaces.name())
    tracker = lab.track(first)
    lab.until_output(first, b"holding\n")
    second = lab.run(HERE + "open(here + '/go', 'w').close()", workspace=spaces.name())
    assert second.job.exit_code == 0, second.stderr
    tracker.close()
    assert lab.finish(first).job.exit_code == 0


def test_caches_are_the_scopes_and_files_are_not(
    lab: Lab, spaces: Workspaces, index: PackageIndex
) -> None:
    first = lab.run(WRITES + "import alpha", workspace=spaces.name(), dependencies=["alpha"])
    assert first.phase("python").hit is False
    second = lab.run(
        HERE + "import alpha; print(os.listdir(here))",
        workspace=spaces.name("two"),
        dependencies=["alpha"],
    )
    assert second.phase("python").hit is True
    assert second.stdout == b"[]\n"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../../x", "is a path"),
        ("a..b", "leads out"),
        ("-x", "not the name"),
        ("x" * 64, "64 characters"),
        ("a\nb", "not the name"),
        ("", "not the name"),
    ],
)
def test_a_wrong_name_is_refused_before_submission(
    lab: Lab, spaces: Workspaces, name: str, why: str
) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        lab.submit("1", workspace=name)
    assert caught.value.field == "workspace"
    assert spaces.history.list() == []


# ---------------------------------------------------------------------------- the commands


def test_one_is_listed_with_its_size_and_its_users(lab: Lab, spaces: Workspaces) -> None:
    code = HERE + "open(here + '/big', 'wb').write(os.urandom(3_000_000))"
    lab.run(code, workspace=spaces.name())
    (found,) = [one for one in spaces.keeper.all() if one.name == spaces.name()]
    assert (found.backend, found.scope, found.bytes) == (lab.backend.name, lab.scope, None)
    assert found.last_used is not None and found.in_use_by == ()
    measured = spaces.keeper.measure(found, silent)
    assert measured.bytes is not None and 3_000_000 < measured.bytes < 3_200_000
    assert measured.files == 1
    assert spaces.keeper.find(spaces.name()).bytes == measured.bytes


def test_one_in_use_is_neither_removed_nor_renamed(lab: Lab, spaces: Workspaces) -> None:
    job = lab.submit(WAITS, workspace=spaces.name())
    tracker = lab.track(job)
    lab.until_output(job, b"holding\n")
    workspace = spaces.keeper.find(spaces.name())
    assert workspace.in_use_by == (job.id,)
    with pytest.raises(EngineError, match=f"{job.id}; it was not removed"):
        spaces.keeper.remove(workspace)
    with pytest.raises(EngineError, match=f"{job.id}; it was not renamed"):
        spaces.keeper.rename(workspace, spaces.name("new"), silent)
    # The engine refuses too, for a job that began after we looked.
    backend = lab.backend
    assert isinstance(backend, KeepsWorkspaces)
    with pytest.raises(EngineError, match=job.id):
        backend.remove_workspace(workspace)
    tracker.close()
    backend.stop(job.id, 0)
    lab.finish(job)
    until(lambda: not spaces.keeper.find(spaces.name()).in_use_by, "it is free")
    spaces.keeper.remove(spaces.keeper.find(spaces.name()))
    assert spaces.mine() == []


def test_a_removed_one_begins_empty(lab: Lab, spaces: Workspaces) -> None:
    lab.run(WRITES, workspace=spaces.name())
    spaces.keeper.remove(spaces.keeper.find(spaces.name()))
    assert spaces.mine() == []
    done = lab.run(HERE + "print(os.listdir(here))", workspace=spaces.name())
    assert done.stdout == b"[]\n"


def test_a_clone_and_a_renamed_one_have_the_files(
    lab: Lab, spaces: Workspaces, tmp_path: Path
) -> None:
    lab.run("pass", workspace=spaces.name())
    tree = a_tree(tmp_path / "tree")
    assert spaces.put(tree, "/") == []
    done = spaces.keeper.clone(spaces.keeper.find(spaces.name()), spaces.name("clone"), silent)
    assert (done.files, done.problems) == (8, ())
    with pytest.raises(RequestError, match="exists already"):
        spaces.keeper.clone(spaces.keeper.find(spaces.name()), spaces.name("clone"), silent)
    spaces.keeper.rename(spaces.keeper.find(spaces.name()), spaces.name("renamed"), silent)
    assert spaces.mine() == [spaces.name("clone"), spaces.name("renamed")]
    for end in ("clone", "renamed"):
        assert spaces.get("/tree", tmp_path / end, end) == []
        assert described(tmp_path / end) == described(tree)
    code = HERE + "import subprocess; subprocess.run([here + '/tree/program'], check=True)"
    done_job = lab.run(code, workspace=spaces.name("renamed"))
    assert done_job.stdout == b"ran\n", done_job.stderr


def test_a_wrong_name_suggests_the_right_one(lab: Lab, spaces: Workspaces) -> None:
    lab.run("pass", workspace=spaces.name())
    with pytest.raises(RequestError) as caught:
        spaces.keeper.find(spaces.name("on"))
    assert spaces.name() in str(caught.value.hint)


# ---------------------------------------------------------------------------- copies


def test_a_copy_is_exact_in_and_out(lab: Lab, spaces: Workspaces, tmp_path: Path) -> None:
    lab.run("pass", workspace=spaces.name())
    tree = a_tree(tmp_path / "tree")
    assert spaces.put(tree, "/some/new/place") == []
    code = HERE + (
        "import hashlib; where = here + '/some/new/place/'\n"
        "print(hashlib.sha256(open(where + 'binary', 'rb').read()).hexdigest())\n"
        "print(sorted(os.listdir(os.fsencode(where))), int(os.stat(where + 'binary').st_mtime))\n"
    )
    import hashlib

    done = lab.run(code, workspace=spaces.name())
    lines = done.stdout.decode().splitlines()
    assert lines[0] == hashlib.sha256((tree / "binary").read_bytes()).hexdigest()
    assert lines[1] == f"{sorted(os.listdir(os.fsencode(tree)))} 1500000000"
    assert spaces.get("some/new/place", tmp_path / "back") == []
    assert described(tmp_path / "back") == described(tree)
    # Into folders that exist, under their own names; over files that exist.
    assert spaces.put(tree, "/some/new") == []
    (tmp_path / "into").mkdir()
    assert spaces.get("/some/new/tree", tmp_path / "into") == []
    assert described(tmp_path / "into" / "tree") == described(tree)
    (tmp_path / "into" / "tree" / "secret").write_text("another")
    assert spaces.get("/some/new/tree/secret", tmp_path / "into" / "tree") == []
    assert (tmp_path / "into" / "tree" / "secret").read_text() == "x"
    # Everything.
    assert spaces.get("/", tmp_path / "all") == []
    assert described(tmp_path / "all" / "some" / "new" / "place") == described(tree)


def test_what_is_not_there_is_named(lab: Lab, spaces: Workspaces, tmp_path: Path) -> None:
    lab.run("pass", workspace=spaces.name())
    with pytest.raises(EngineError, match=r"no-such: No such file"):
        spaces.get("/no-such", tmp_path / "x")
    with pytest.raises(RequestError, match="no-such"):
        spaces.put(tmp_path / "no-such", "/")
    with pytest.raises(EngineError, match="leads out"):
        spaces.get("/../etc/passwd", tmp_path / "x")
    with pytest.raises(EngineError, match="leads out"):
        spaces.put(tmp_path, "/../../tmp")
    assert os.listdir(tmp_path) == ["home"]


def test_hostile_links_are_not_followed_out(lab: Lab, spaces: Workspaces, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    code = HERE + (
        f"os.symlink({str(outside)!r}, here + '/out')\n"
        "os.symlink('/etc/passwd', here + '/passwd')\n"
        "os.mkdir(here + '/a'); os.mkdir(here + '/a/b')\n"
        "os.symlink('../..', here + '/a/b/top')\n"
        "os.symlink('a/b/top/../x', here + '/sly')\n"
        "os.symlink('a/b', here + '/fine')\n"
        "os.mkfifo(here + '/fifo')\n"
        "open(here + '/file', 'w').write('file')\n"
    )
    lab.run(code, workspace=spaces.name())
    problems = spaces.get("/", tmp_path / "all")
    assert sorted(problem.partition(":")[0] for problem in problems) == [
        "fifo", "out", "passwd", "sly",
    ]  # fmt: skip
    assert sorted(os.listdir(tmp_path / "all")) == ["a", "file", "fine"]
    assert os.readlink(tmp_path / "all" / "fine") == "a/b"
    for path in ("/out/precious", "/a/b/top/file"):
        with pytest.raises(EngineError, match="is a symbolic link, which is not followed"):
            spaces.get(path, tmp_path / "x")
    # Nor is anything written through a link, there or here.
    with pytest.raises(EngineError, match="is a symbolic link, which is not followed"):
        spaces.put(outside / "precious", "/out/new")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").symlink_to(outside)
    problems = spaces.get("/a", tmp_path / "mine")
    assert any("symbolic link" in problem for problem in problems)
    assert sorted(os.listdir(outside)) == ["precious"]
    assert (outside / "precious").read_text() == "precious"
    remove_tree(str(tmp_path / "all"))


# ---------------------------------------------------------------------------- claims


@pytest.mark.cluster
def test_a_cluster_with_claims_has_one_for_each(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STOKE_ARGO__CACHE", "claim")
    monkeypatch.setenv("STOKE_ARGO__CLAIM_SIZE", "1Gi")
    for lab in open_lab("argo", request, monkeypatch):
        spaces = Workspaces(lab)
        lab.run(WRITES, workspace=spaces.name(), use_cache=False)
        (found,) = [one for one in spaces.keeper.all() if one.name == spaces.name()]
        api = request.getfixturevalue("real_cluster").connect()
        path = f"/api/v1/namespaces/{api.namespace}/persistentvolumeclaims/{found.place}"
        claim = api.request("GET", path)
        assert claim["metadata"]["labels"]["stoke.type"] == "workspace"
        assert claim["spec"]["resources"]["requests"]["storage"] == "1Gi"
        assert found.node is None
        tree = a_tree(tmp_path / "tree")
        assert spaces.put(tree, "/") == []
        spaces.keeper.rename(spaces.keeper.find(spaces.name()), spaces.name("new"), silent)
        assert spaces.get("/tree", tmp_path / "back", "new") == []
        assert described(tmp_path / "back") == described(tree)
        done = lab.run(READS, workspace=spaces.name("new"), use_cache=False)
        assert done.stdout == b"kept\n", done.stderr
        spaces.keeper.remove(spaces.keeper.find(spaces.name("new")))
        assert spaces.mine() == []
        spaces.history.close()
        api.close()


@pytest.mark.cluster
def test_the_pods_of_one_run_on_the_node_that_has_it(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for lab in open_lab("argo", request, monkeypatch):
        spaces = Workspaces(lab)
        lab.run(WRITES, workspace=spaces.name())
        (found,) = [one for one in spaces.keeper.all() if one.name == spaces.name()]
        assert found.node is not None
        job = lab.submit(WAITS, workspace=spaces.name())
        tracker = lab.track(job)
        lab.until_output(job, b"holding\n")
        api = request.getfixturevalue("real_cluster").connect()
        pod = api.request("GET", f"/api/v1/namespaces/{api.namespace}/pods/{job.id}")
        assert pod["metadata"]["labels"]["stoke.workspace"] == spaces.name()
        assert pod["spec"]["nodeSelector"]["kubernetes.io/hostname"] == found.node
        assert "podAffinity" in pod["spec"]["affinity"]
        tracker.close()
        lab.backend.stop(job.id, 0)
        lab.finish(job)
        spaces.keeper.remove(spaces.keeper.find(spaces.name()))
        spaces.history.close()
        api.close()
