"""Where everything of a cluster is: addresses, names, files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NODE = "stoke-node"
NAMESPACE = "stoke-test"
RESTRICTED_NAMESPACE = "stoke-restricted"

# 198.18.0.0/15 is set apart for tests (RFC 2544): no real network that a job may want to reach uses it.
POD_NETWORK = "198.18.0.0/24"
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
    """One cluster: its folder, and its number among those of this machine."""

    folder: Path
    number: int

    @property
    def host(self) -> str:
        """The machine's own address on the line to the node: where pods reach servers of a test."""
        return f"198.19.{self.number}.1"

    @property
    def node(self) -> str:
        return f"198.19.{self.number}.2"

    @property
    def line(self) -> str:
        """The network of these two."""
        return f"198.19.{self.number}.0/30"

    @property
    def interface(self) -> str:
        return f"stoke-k{self.number}"

    @property
    def cgroup(self) -> str:
        return f"stoke-k{self.number}"

    @property
    def server(self) -> str:
        return f"https://{self.node}:443"

    @property
    def state(self) -> Path:
        return self.folder / "state.json"

    @property
    def env(self) -> Path:
        return self.folder / "env"

    @property
    def ca(self) -> Path:
        return self.folder / "pki/ca.crt"

    def log(self, program: str) -> Path:
        return self.folder / f"logs/{program}.log"

    def kubeconfig(self, user: str) -> Path:
        return self.folder / f"{user}.kubeconfig"

    def on_node(self, path: str) -> Path:
        """Where a path of the node (a hostPath volume's, say) is found from outside."""
        for folder, own in OWN_FOLDERS.items():
            if path.startswith(folder + "/"):
                return self.folder / own / path.removeprefix(folder + "/")
        return Path(path)
