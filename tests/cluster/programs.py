"""The programs that make a node, their arguments and their configuration files.

All of it sees the cluster's folder as /mnt (layout.INSIDE).
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.images import PAUSE_IMAGE
from tests.cluster.layout import INSIDE, SECOND_TAINT, SERVICE_NETWORK, Layout

CONTAINERD = f"{INSIDE}/containerd.sock"
OF_EVERY_NODE = ("containerd", "kubelet")


def commands(layout: Layout) -> dict[str, list[str]]:
    """Program -> its command, in the order in which they are started."""
    every = {
        "etcd": [
            "etcd",
            "--data-dir", f"{INSIDE}/etcd",
            "--unsafe-no-fsync",  # nothing here outlives the machine
            "--log-level", "warn",
        ],
        "containerd": ["containerd", "--config", f"{INSIDE}/containerd.toml"],
        "kube-apiserver": [
            f"{INSIDE}/bin/kube-apiserver",
            "--etcd-servers=http://127.0.0.1:2379",
            # With the service's address on the loopback, pods reach it without kube-proxy.
            "--secure-port=443",
            f"--advertise-address={layout.node}",
            "--endpoint-reconciler-type=none",
            f"--service-cluster-ip-range={SERVICE_NETWORK}",
            f"--tls-cert-file={INSIDE}/pki/server.crt",
            f"--tls-private-key-file={INSIDE}/pki/server.key",
            f"--token-auth-file={INSIDE}/tokens.csv",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={INSIDE}/pki/accounts.key",
            f"--service-account-signing-key-file={INSIDE}/pki/accounts.key",
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-client-certificate={INSIDE}/pki/client.crt",
            f"--kubelet-client-key={INSIDE}/pki/client.key",
        ],
        "kube-controller-manager": [
            f"{INSIDE}/bin/kube-controller-manager",
            f"--kubeconfig={INSIDE}/admin.inside",
            f"--root-ca-file={INSIDE}/pki/ca.crt",
            f"--service-account-private-key-file={INSIDE}/pki/accounts.key",
            "--controllers=*,-nodeipam,-route,-cloud-node-lifecycle",
            "--enable-hostpath-provisioner=true",  # claims are folders of the node, in /tmp/hostpath_pv
            "--leader-elect=false",
            "--secure-port=0",
        ],
        "kube-scheduler": [
            f"{INSIDE}/bin/kube-scheduler",
            f"--kubeconfig={INSIDE}/admin.inside",
            "--leader-elect=false",
            "--secure-port=0",
        ],
        "kubelet": [
            f"{INSIDE}/bin/kubelet",
            f"--config={INSIDE}/kubelet.json",
            f"--kubeconfig={INSIDE}/kubelet.inside",
            f"--hostname-override={layout.name}",
            f"--node-ip={layout.node}",  # it refuses a loopback address
        ],
    }  # fmt: skip
    return {one: every[one] for one in OF_EVERY_NODE} if layout.is_second else every


def write_configuration(layout: Layout, plugins: str, mtu: int) -> None:
    """The files that `commands` names. `plugins`: the folder of the CNI plugins."""
    folder = layout.folder
    (folder / "containerd.toml").write_text(_containerd(plugins))
    (folder / "kubelet.json").write_text(json.dumps(_kubelet(layout), indent=1))
    (folder / "cni").mkdir()
    (folder / "cni/10-pods.conflist").write_text(json.dumps(_pod_network(layout, mtu), indent=1))
    # Pods ask the machine's own name servers: there is no name service in this cluster.
    (folder / "resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())


def _containerd(plugins: str) -> str:
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""\
version = 2
root = "{INSIDE}/containerd/root"
state = "{INSIDE}/containerd/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{CONTAINERD}"
[{cri}]
sandbox_image = "{PAUSE_IMAGE}"
# Without CAP_SYS_RESOURCE, which a machine that is a container itself lacks, no score can be lowered.
restrict_oom_score_adj = true
[{cri}.cni]
bin_dir = "{plugins}"
conf_dir = "{INSIDE}/cni"
[{cri}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def _kubelet(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # The test's machine may be smaller or fuller than a node should be.
        "localStorageCapacityIsolation": False,
        "evictionHard": {
            "memory.available": "10Mi",
            "nodefs.available": "0%",
            "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,  # no registry has them
        # A client with a certificate may do everything; only the API server has one.
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": f"{INSIDE}/pki/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "resolvConf": f"{INSIDE}/resolv.conf",
        "healthzPort": 0,
        "registerWithTaints": [SECOND_TAINT] if layout.is_second else [],
    }


def _pod_network(layout: Layout, mtu: int) -> dict[str, object]:
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "mtu": mtu,
        "isGateway": True,
        "ipMasq": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": layout.pods}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
