"""Downloads from a cluster whose connections are cut: the files are whole, and arrive once."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from stoke.files.paths import state_dir
from tests.conftest import TestCluster
from tests.contract.conftest import open_lab
from tests.contract.test_workspace_contract import Workspaces, a_tree, described
from tests.cutting_proxy import CuttingProxy
from tests.lab import Lab
from tests.terminals import PROGRAM

pytestmark = pytest.mark.cluster

# No compression makes these smaller.
WRITES = """
import hashlib, os
for name in ("a.bin", "deep/b.bin", "c.bin"):
    path = os.environ["STOKE_RESULTS"] + "/" + name
    os.makedirs(os.path.dirname(path), exist_ok=True)
    data = os.urandom(500_000)
    open(path, "wb").write(data)
    print(name, hashlib.sha256(data).hexdigest())
"""
LARGEST = 900_000
"""A connection passes fewer bytes, so that none brings everything."""
PATIENCE = 280


@pytest.fixture
def real_cluster(real_cluster: TestCluster, tmp_path: Path) -> TestCluster:
    """With a kubeconfig of this test's own: a job remembers by which one it was submitted."""
    copy = tmp_path / "kubeconfig"
    copy.write_bytes(Path(real_cluster.kubeconfig).read_bytes())
    return replace(real_cluster, kubeconfig=str(copy))


@pytest.fixture
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    yield from open_lab("argo", request, monkeypatch)


@pytest.fixture
def proxy(real_cluster: TestCluster) -> Iterator[CuttingProxy]:
    choose = random.Random()
    api = real_cluster.connect()
    proxy = CuttingProxy(api.server, lambda: choose.randint(400_000, LARGEST))
    api.close()
    yield proxy
    proxy.close()


@pytest.fixture
def through(
    proxy: CuttingProxy, real_cluster: TestCluster
) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    """Run `stoke`, which reaches the cluster through the proxy."""
    path = Path(real_cluster.kubeconfig)

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[bytes]:
        direct = path.read_bytes()
        path.write_text(proxy.kubeconfig(real_cluster.kubeconfig))
        try:
            return subprocess.run(
                [PROGRAM, "--debug", *arguments],
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
        finally:
            path.write_bytes(direct)

    return run


def test_results_continue_where_the_connection_was_cut(
    lab: Lab,
    proxy: CuttingProxy,
    through: Callable[..., subprocess.CompletedProcess[bytes]],
    tmp_path: Path,
) -> None:
    job = lab.submit(WRITES)
    done, _ = lab.follow_only(job)
    assert done.exit_code == 0
    copied = through("results", job.id, "-o", tmp_path / "out")
    assert copied.returncode == 0, copied.stderr
    expected = dict(line.split() for line in lab.output(job, 1).decode().splitlines())
    found = {
        str(path.relative_to(tmp_path / "out")): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (tmp_path / "out").rglob("*.bin")
    }
    assert found == expected and len(found) == 3
    # Each pod begins where the connection to the one before was cut.
    steps = re.findall(r"results (from|cut at) (\d+)", (state_dir() / "debug.log").read_text())
    at = 0
    for step, offset in steps:
        assert step == "cut at" or int(offset) == at, steps
        at = int(offset)
    assert len({offset for step, offset in steps if step == "cut at"}) >= 2, steps


def test_a_copy_out_of_a_workspace_continues_where_the_connection_was_cut(
    lab: Lab,
    proxy: CuttingProxy,
    through: Callable[..., subprocess.CompletedProcess[bytes]],
    tmp_path: Path,
) -> None:
    spaces = Workspaces(lab)
    lab.run("pass", workspace=spaces.name())
    tree = a_tree(tmp_path / "tree")
    (tree / "deep" / "large").write_bytes(os.urandom(9_000_000))
    assert spaces.put(tree, "/") == []
    copied = through("workspace", "cp", "-b", "argo", f"{spaces.name()}:/tree", tmp_path / "back")
    spaces.keeper.remove(spaces.keeper.find(spaces.name()))
    spaces.history.close()
    assert copied.returncode == 0, copied.stderr
    assert described(tmp_path / "back") == described(tree)
    size = sum(path.stat().st_size for path in tree.rglob("*") if not path.is_symlink())
    assert proxy.cuts > size // LARGEST
    # Hardly more than once, with everything else that it asks the cluster for.
    assert proxy.passed < size * 1.25
