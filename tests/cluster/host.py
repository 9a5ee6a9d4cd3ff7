"""What a cluster needs of the machine outside its node: one interface pair, three firewall rules,
one control group. Each is named after the cluster's number, so that it can be found and removed."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.layout import Layout

FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


def connect(layout: Layout, node: int, mtu: int) -> None:
    """A line from this machine to the network namespace of the process `node`, and on to the world."""
    name = layout.interface
    run(
        "ip", "link", "add", name, "mtu", str(mtu), "type", "veth",
        "peer", "name", "eth0", "mtu", str(mtu), "netns", str(node),
    )  # fmt: skip
    run("ip", "address", "add", f"{layout.host}/30", "dev", name)
    run("ip", "link", "set", name, "up")
    # A Docker engine has everything dropped that it does not forward itself.
    for rule in _rules(layout):
        run("iptables", "-w", *_table(rule), "-I", *rule[1:])
    FORWARDING.write_text("1")  # and it stays so: a Docker engine wants it as well


def connect_second(layout: Layout, first: int, second: int, mtu: int) -> None:
    """A line between the nodes, whose first processes these are: the second node reaches everything
    through the first, so this machine needs nothing more."""
    name = "second"
    inside = ("nsenter", f"--net=/proc/{first}/ns/net")
    # The interface is made in the first node's namespace, where it is to stay.
    run(
        *inside, "ip", "link", "add", name, "mtu", str(mtu), "type", "veth",
        "peer", "name", "eth0", "mtu", str(mtu), "netns", str(second),
    )  # fmt: skip
    run(*inside, "ip", "address", "add", f"{layout.second.gateway}/30", "dev", name)
    run(*inside, "ip", "link", "set", name, "up")
    run(
        *inside, "iptables", "-w", "-t", "nat", "-A", "POSTROUTING",
        "-s", layout.second.line, "-o", "eth0", "-j", "MASQUERADE",
    )  # fmt: skip


def disconnect(layout: Layout) -> None:
    for rule in _rules(layout):
        while not _run("iptables", "-w", *_table(rule), "-D", *rule[1:]).returncode:
            pass
    # The kernel does so too when the namespace ends, but only a moment later.
    _run("ip", "link", "delete", layout.interface)


def _rules(layout: Layout) -> list[tuple[str, ...]]:
    """Table, chain, and the rule."""
    name = layout.interface
    return [
        ("filter", "FORWARD", "-i", name, "-j", "ACCEPT"),
        # Only answers: no connection from outside reaches the node.
        ("filter", "FORWARD", "-o", name, "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED",
         "-j", "ACCEPT"),
        ("nat", "POSTROUTING", "-s", layout.line, "!", "-o", name, "-j", "MASQUERADE"),
    ]  # fmt: skip


def _table(rule: tuple[str, ...]) -> tuple[str, str]:
    return "-t", rule[0]


def packet_size() -> int:
    """What the machine's own way out takes, 1500 at most: an answer in bigger packets would vanish."""
    for line in Path("/proc/net/route").read_text().splitlines()[1:]:
        device, destination = line.split()[:2]
        if destination == "00000000":
            return min(1500, int(Path(f"/sys/class/net/{device}/mtu").read_text()))
    return 1500


def make_cgroup(layout: Layout) -> None:
    """One in each hierarchy: the kubelet wants its root to exist."""
    for root in _hierarchies():
        (root / layout.cgroup).mkdir(exist_ok=True)


def remove_cgroup(layout: Layout, seconds: float = 10) -> None:
    """Waits for processes that are on their way out; `OSError` when some stay."""
    until = time.monotonic() + seconds
    for root in _hierarchies():
        top = root / layout.cgroup
        while top.exists():
            try:
                for folder, _, _ in os.walk(top, topdown=False):
                    os.rmdir(folder)
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)


def _hierarchies() -> Iterator[Path]:
    """Where control groups are mounted: many places in version 1, one in version 2."""
    seen = set()
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2") and place not in seen:
            seen.add(place)
            yield Path(place)


def run(*command: str) -> None:
    done = _run(*command)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)
