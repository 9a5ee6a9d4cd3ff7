"""Starts a cluster, and removes every trace of it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import urllib3

from tests.cluster import host, images, manifests, pki, programs
from tests.cluster.api import Api, ApiError
from tests.cluster.layout import MAX_CLUSTERS, NAMESPACE, OWN_FOLDERS, Layout
from tests.cluster.process import Process

# Where Debian, and most others, put the CNI plugins.
PLUGIN_FOLDERS = ["/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"]
TOOLS = {
    "etcd": "etcd-server",
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
    "unshare": "util-linux",
}
START_SECONDS = 120
LOG_LINES = 25
REPOSITORY = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class ClusterError(Exception):
    """What did not come up, and the end of its log."""


def up(folder: Path, wanted: list[str], argo: str, second: list[str] | None = None) -> str:
    """Starts a cluster in `folder`, unless it runs already; the environment for the tests, a line
    a variable. `wanted` are the images of its node, `second` those of a second one, if it has that."""
    layout = found(folder)
    if layout is not None and _lives(layout):
        return layout.env.read_text()
    down(folder)
    plugins = _requirements()
    try:
        layout = _start(folder, plugins, with_second=second is not None)
        _bring_up(layout, wanted, argo, second)
    except BaseException:
        _keep_logs(folder)
        down(folder)
        raise
    return layout.env.read_text()


def down(folder: Path) -> None:
    """Ends what `up` started there and removes the folder. Does nothing where there is nothing."""
    if not folder.exists():
        return
    state = _state(folder)
    if not state:
        raise ClusterError(f"{folder} is no cluster's folder: name one that does not exist")
    # The nodes last: with the first process of each all others end.
    for name in ("argo", "second", "node"):
        if name in state["processes"]:
            Process(*state["processes"][name]).end()
    if state["number"] is not None:
        layout = Layout(folder, state["number"])
        try:
            host.disconnect(layout)
            host.remove_cgroup(layout.second)
            host.remove_cgroup(layout)
        except OSError as error:
            raise ClusterError(
                f"the control group of {folder} cannot be removed: {error}"
            ) from error
    # The file that marks the folder as ours is removed last, so an interrupted removal can be repeated.
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ClusterError(
            f"{folder} cannot be removed; see what still uses it: fuser -vm {folder}"
        )


def found(folder: Path) -> Layout | None:
    """The cluster that was started there."""
    number = _state(folder).get("number")
    return None if number is None else Layout(folder, number)


def processes(layout: Layout) -> dict[str, Process]:
    """The programs of a node, as they are numbered outside of it."""
    folder = layout.folder.parent if layout.is_second else layout.folder
    started = _state(folder)["processes"]["second" if layout.is_second else "node"]
    by_name = {}
    for pid in Process(*started).children():
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            by_name[name] = Process.of(pid)
        except (OSError, ProcessLookupError):
            continue  # it ended meanwhile
    # The kernel keeps 15 characters of a name.
    wanted = programs.commands(layout)
    return {name: by_name[name[:15]] for name in wanted if name[:15] in by_name}


def _requirements() -> str:
    """The folder of the CNI plugins, once everything else is known to be there."""
    if os.geteuid():
        raise ClusterError("a node needs root: it makes namespaces, interfaces and control groups")
    missing = sorted({package for tool, package in TOOLS.items() if not shutil.which(tool)})
    plugins = [folder for folder in PLUGIN_FOLDERS if Path(folder, "host-local").exists()]
    if not plugins:
        missing.append("containernetworking-plugins")
    if missing:
        raise ClusterError(f"not installed: apt-get install {' '.join(missing)}")
    for name in ("STOKE_TEST_KUBERNETES", "STOKE_TEST_EXECUTOR"):
        if not os.path.exists(os.environ.get(name, "")):
            raise ClusterError(f"{name} names nothing that exists: run .ci/kubernetes")
    return plugins[0]


def _start(folder: Path, plugins: str, with_second: bool) -> Layout:
    """The first process of each node, connected; their programs are still starting."""
    folder.mkdir(parents=True)
    _write(folder / "state.json", json.dumps({"number": None, "processes": {}}))
    _make_folders(folder)
    (folder / "etcd").mkdir(mode=0o700)
    layout, lock = _claim_number(folder)
    mtu = host.packet_size()
    pki.make(layout)
    programs.write_configuration(layout, plugins, mtu)
    first = _start_node(layout, layout, "node", lock)
    host.connect(layout, first, mtu)
    if with_second:
        second = layout.second
        _make_folders(second.folder)
        second.logs.mkdir()
        pki.share(layout, second)
        programs.write_configuration(second, plugins, mtu)
        inner = _start_node(layout, second, "second", lock)
        host.connect_second(layout, first, inner, mtu)
    os.close(lock)
    return layout


def _make_folders(folder: Path) -> None:
    """The folders that every node mounts or writes to."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)  # a job may run as any user and has its volumes in here
    for name in ("logs", "bin", "kernel", *OWN_FOLDERS.values()):
        (folder / name).mkdir(mode=0o755)
    (folder / "tmp").chmod(0o1777)


def _start_node(layout: Layout, node: Layout, name: str, lock: int) -> int:
    """A node's first process, in namespaces of its own."""
    host.make_cgroup(node)
    with node.log("node").open("ab") as log:
        process = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
             sys.executable, "-m", "tests.cluster.node", str(node.folder), str(node.number),
             *(["second"] if node.is_second else [])],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[lock],
        )  # fmt: skip
    outer = Process.of(process.pid)
    _remember(layout, **{name: outer})  # so that nothing is lost if we end here
    inner = _until("node", layout, lambda: outer.children() or None)[0]
    _remember(layout, **{name: Process.of(inner)})
    return inner


def _claim_number(folder: Path) -> tuple[Layout, int]:
    """A number that no running cluster of this machine has, and the lock on it: the node's first
    process inherits it, so it is free again when that ends, however it ends."""
    for number in range(MAX_CLUSTERS):
        lock = os.open(f"/run/lock/stoke-test-cluster-{number}", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        layout = Layout(folder, number)
        host.disconnect(layout)  # of one that was killed
        host.remove_cgroup(layout.second)
        host.remove_cgroup(layout)
        _write(layout.state, json.dumps({"number": number, "processes": {}}))
        return layout, lock
    raise ClusterError(f"{MAX_CLUSTERS} clusters run on this machine already")


def _bring_up(layout: Layout, wanted: list[str], argo: str, second: list[str] | None) -> None:
    admin = Api(layout.kubeconfig("admin"))
    nodes = [(layout, wanted)] if second is None else [(layout, wanted), (layout.second, second)]
    executor = Path(os.environ["STOKE_TEST_EXECUTOR"])
    with ThreadPoolExecutor() as pool:
        # The nodes' images, while Kubernetes starts.
        brought = []
        for node, names in nodes:
            socket = node.folder / "containerd.sock"
            _until("containerd", layout, partial(_is_socket, socket))
            brought.append(pool.submit(images.import_executor, socket, executor))
            brought += [pool.submit(images.import_from_docker, socket, one) for one in names]
        _until("kube-apiserver", layout, lambda: _ready(admin))
        for path, body in manifests.all_of(argo=argo == "standin"):
            _until("kube-apiserver", layout, partial(_create, admin, path, body))
        for node, _ in nodes:
            _until("kubelet", layout, partial(_node_ready, admin, node.name))
        _until("kube-controller-manager", layout, lambda: _account_there(admin))
        for one in brought:
            try:
                one.result()
            except RuntimeError as error:
                raise ClusterError(str(error)) from error
    if argo == "standin":
        _start_standin(layout)
    env: dict[str, object] = {
        "STOKE_TEST_KUBECONFIG": layout.kubeconfig("admin"),
        "STOKE_TEST_KUBECONFIG_USER": layout.kubeconfig("user"),
        "STOKE_TEST_KUBECONFIG_NOBODY": layout.kubeconfig("nobody"),
        "STOKE_TEST_NAMESPACE": NAMESPACE,
        "STOKE_TEST_CLUSTER_HOST": layout.host,
        "STOKE_TEST_CLUSTER_DIR": layout.folder,
    }
    if second is not None:
        env["STOKE_TEST_SECOND_NODE"] = layout.second.name
    if argo == "standin":
        env["STOKE_TEST_ARGO"] = "standin"
    _write(layout.env, "".join(f"{name}={value}\n" for name, value in env.items()))


def _start_standin(layout: Layout) -> None:
    with layout.log("argo").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.argo_standin", str(layout.kubeconfig("admin"))],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _remember(layout, argo=Process.of(process.pid))


def _is_socket(path: Path) -> bool | None:
    return path.is_socket() or None


def _ready(admin: Api) -> bool | None:
    return _tried(lambda: admin.text("/readyz") == "ok")


def _node_ready(admin: Api, node: str) -> bool | None:
    def asked() -> bool:
        conditions = admin.get(f"/api/v1/nodes/{node}").get("status", {}).get("conditions", [])
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    return _tried(asked)


def _account_there(admin: Api) -> bool | None:
    """A pod is refused until its namespace has its default account."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/default"
    return _tried(lambda: bool(admin.get(path)))


def _create(admin: Api, path: str, body: dict[str, Any]) -> bool | None:
    return _tried(lambda: bool(admin.create(path, body)))


def _tried(ask: Callable[[], bool]) -> bool | None:
    """None where it must be asked again."""
    try:
        return ask() or None
    except urllib3.exceptions.HTTPError:
        return None
    except ApiError as error:
        if error.status in (400, 422):
            raise ClusterError(f"the API server refuses what it is asked for: {error}") from error
        return True if error.reason == "AlreadyExists" else None


def _until(program: str, layout: Layout, ask: Callable[[], T | None]) -> T:
    """The first answer that is not None. `ClusterError` with the end of a log when a program ends,
    or when it takes too long: then `program` is what we waited for."""
    until = time.monotonic() + START_SECONDS
    while (answer := ask()) is None:
        started = _state(layout.folder)["processes"]
        for node, first in ((layout, "node"), (layout.second, "second")):
            ended = node.folder / "ended"
            if ended.exists():
                name, code = ended.read_text().split()[:2]
                raise ClusterError(f"{name} ended with code {code}\n{_end_of_log(node, name)}")
            if first in started and not Process(*started[first]).alive:
                raise ClusterError(f"{node.name} ended\n{_end_of_log(node, 'node')}")
        if time.monotonic() > until:
            log = _end_of_log(layout, program)
            raise ClusterError(f"{program} is not ready after {START_SECONDS} s\n{log}")
        time.sleep(0.1)
    return answer


def _end_of_log(layout: Layout, program: str) -> str:
    log = layout.log(program)
    lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
    return "\n".join([f"the end of {log.name}:", *lines])


def _keep_logs(folder: Path) -> None:
    """Beside the folder, which `down` removes: a failure in an automated run is read afterwards."""
    kept = folder.with_name(f"{folder.name}-logs")
    shutil.rmtree(kept, ignore_errors=True)
    if (folder / "logs").exists():
        shutil.copytree(folder / "logs", kept)


def _lives(layout: Layout) -> bool:
    started = _state(layout.folder)["processes"].values()
    return layout.env.exists() and all(Process(*one).alive for one in started)


def _state(folder: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except FileNotFoundError:
        return {}
    return state


def _remember(layout: Layout, **processes: Process) -> None:
    state = _state(layout.folder)
    for name, process in processes.items():
        state["processes"][name] = [process.pid, process.started]
    _write(layout.state, json.dumps(state))


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    part.replace(path)
