"""A node's first process: `python -m tests.cluster.node DIR NUMBER [second]` in namespaces of its own.

Hides the machine's folders, brings the network up, starts the programs in their order, starts again
what ends, and reaps what is left behind. When it ends the kernel ends all the others with it.
"""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster.layout import API_SERVICE, INSIDE, OWN_FOLDERS, Layout
from tests.cluster.programs import CONTAINERD, commands

# The kubelet sets these for the whole machine. It is shown what it wants to see instead.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def main() -> None:
    layout = Layout(Path(sys.argv[1]), int(sys.argv[2]), is_second=sys.argv[3:] == ["second"])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    _mount(layout)
    _connect(layout)
    node = Node(layout)
    if layout.is_second:
        node.start("containerd")
    else:
        node.start("etcd", "containerd", "kube-apiserver")
    # The others would end themselves where there is no API server yet.
    node.attend(until=partial(_api_is_ready, layout))
    if not layout.is_second:
        node.start("kube-controller-manager", "kube-scheduler")
    node.attend(until=Path(CONTAINERD).is_socket)
    node.start("kubelet")
    node.attend()


class Node:
    def __init__(self, layout: Layout) -> None:
        self._commands = commands(layout)
        self._running: dict[int, str] = {}

    def start(self, *programs: str) -> None:
        for program in programs:
            with open(f"{INSIDE}/logs/{program}.log", "ab") as log:
                process = subprocess.Popen(
                    self._commands[program], stdout=log, stderr=log, stdin=subprocess.DEVNULL
                )
            self._running[process.pid] = program
            process.returncode = 0  # it is reaped below: Popen must not wait for it

    def attend(self, until: Callable[[], bool] = lambda: False) -> None:
        """Reaps what has ended, and starts again what should run, until `until()`."""
        while not until():
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    break
                if not pid:
                    break
                if program := self._running.pop(pid, None):
                    with open(f"{INSIDE}/ended", "a") as ended:
                        ended.write(f"{program} {os.waitstatus_to_exitcode(status)}\n")
                    time.sleep(0.2)
                    self.start(program)
            time.sleep(0.05)


def _mount(layout: Layout) -> None:
    _run("mount", "--bind", str(layout.folder), INSIDE)
    _run("mount", "--bind", str(layout.logs), f"{INSIDE}/logs")
    _run("mount", "--bind", os.environ["STOKE_TEST_KUBERNETES"], f"{INSIDE}/bin")
    for folder, own in OWN_FOLDERS.items():
        _run("mount", "--bind", f"{INSIDE}/{own}", folder)
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    for name, value in KERNEL_SETTINGS.items():
        seen = Path(f"{INSIDE}/kernel/{name.replace('/', '.')}")
        seen.write_text(value)
        _run("mount", "--bind", str(seen), f"/proc/sys/{name}")
    # Volumes that a container mounts for others must be able to spread.
    _run("mount", "--make-rshared", "/")
    os.chdir(INSIDE)


def _connect(layout: Layout) -> None:
    """The node's end of its line: `up` moves it into this namespace."""
    # Asked of the kernel: /sys still shows the machine's.
    while subprocess.run(["ip", "link", "show", "eth0"], capture_output=True).returncode:
        time.sleep(0.02)
    _run("ip", "link", "set", "lo", "up")
    if not layout.is_second:
        _run("ip", "address", "add", f"{API_SERVICE}/32", "dev", "lo")
    _run("ip", "address", "add", f"{layout.node}/30", "dev", "eth0")
    _run("ip", "link", "set", "eth0", "up")
    _run("ip", "route", "add", "default", "via", layout.gateway)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _api_is_ready(layout: Layout) -> bool:
    trusted = ssl.create_default_context(cafile=f"{INSIDE}/pki/ca.crt")
    try:
        with urllib.request.urlopen(f"{layout.server}/readyz", context=trusted, timeout=2):
            return True
    except (OSError, urllib.error.URLError):
        return False


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    main()
