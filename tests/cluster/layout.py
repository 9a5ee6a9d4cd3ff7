"""Where everything of a cluster is: addresses, names, files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE = "stoke-node"
SECOND_NODE = "stoke-second"
# Only pods that tolerate it go to the second node, so tests with one node are the same with two.
SECOND_TAINT = {"key": "stoke-test/second", "effect": "NoSchedule"}
NAMESPACE = "stoke-test"
RESTRICTED_NAMESPACE = "stoke-restricted"

# 198.18.0.0/15 is set apart for tests (RFC 2544): no real network that a job may want to reach uses it.
SERVICE_NETWORK = "198.18.255.0/24"
API_SERVICE = "198.18.255.1"

# Inside the node, the cluster's folder is seen here whatever it is called outside.
INSIDE = "/mnt"
# These folders of the machine are hidden from the node behind folders of its own: an absolute path
# that Kubernetes has built in must not meet the machine's, or another cluster's.
OWN_FOLDERS = {"/var/lib": "var-lib", "/var/log": "var-log", "/tmp": "tmp"}

MAX_CLUSTERS = 20


@dataclass(frozen=True)
class Layout:
    """One cluster: its folder, and its number among those of this machine; or its second node."""

    folder: Path
    number: int
    is_second: bool = False

    @property
    def second(self) -> Layout:
        """The cluster's second node: programs, caches and images of its own."""
        return Layout(self.folder / "second", self.number, is_second=True)

    @property
    def name(self) -> str:
        return SECOND_NODE if self.is_second else NODE

    @property
    def host(self) -> str:
        """The machine's own address on the line to the node: where pods reach servers of a test."""
        return f"198.19.{self.number}.1"

    @property
    def api(self) -> str:
        """The first node's address, which has the API server."""
        return f"198.19.{self.number}.2"

    @property
    def node(self) -> str:
        return f"198.19.{self.number}.6" if self.is_second else self.api

    @property
    def gateway(self) -> str:
        """The other end of the node's line: this machine, and for the second node the first."""
        return f"198.19.{self.number}.5" if self.is_second else self.host

    @property
    def line(self) -> str:
        """The network of the node and its gateway."""
        return f"198.19.{self.number}.{4 if self.is_second else 0}/30"

    @property
    def pods(self) -> str:
        """The network of the node's pods."""
        return f"198.18.{1 if self.is_second else 0}.0/24"

    @property
    def interface(self) -> str:
        return f"stoke-k{self.number}"

    @property
    def cgroup(self) -> str:
        return f"stoke-k{self.number}" + ("-second" if self.is_second else "")

    @property
    def server(self) -> str:
        return f"https://{self.api}:443"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def env(self) -> Path:
        return self.folder / "env"

    @property
    def ca(self) -> Path:
        return self.folder / "pki/ca.crt"

    @property
    def logs(self) -> Path:
        """The second node's are below the cluster's, with which they are kept after a failure."""
        return self.folder.parent / "logs/second" if self.is_second else self.folder / "logs"

    def log(self, program: str) -> Path:
        return self.logs / f"{program}.log"

    def kubeconfig(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"

    def on_node(self, path: str) -> Path:
        """Where a path of the node (a hostPath volume's, say) is found from outside."""
        for folder, own in OWN_FOLDERS.items():
            if path.startswith(folder + "/"):
                return self.folder / own / path.removeprefix(folder + "/")
        return Path(path)
