"""What the parts of a cluster know each other by: certificates, tokens, kubeconfigs."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from pathlib import Path

from tests.cluster.layout import API_SERVICE, INSIDE, NAMESPACE, NODE, SECOND_NODE, Layout

CA_INSIDE = Path(f"{INSIDE}/pki/ca.crt")
# kubeconfig -> its user and groups. `user` and `nobody` have the rights that manifests.py or a test
# gives them.
USERS = {
    "admin": ("admin", ["system:masters"]),
    "kubelet": (f"system:node:{NODE}", ["system:nodes"]),
    "second-kubelet": (f"system:node:{SECOND_NODE}", ["system:nodes"]),
    "user": ("user", []),
    "nobody": ("nobody", []),
}


def make(layout: Layout) -> None:
    """Writes pki/, tokens.csv and one kubeconfig for each of USERS."""
    folder = layout.folder / "pki"
    folder.mkdir(mode=0o700)
    _openssl(
        folder, "req", "-x509", *_NEW_KEY, "-keyout", "ca.key", "-out", "ca.crt",
        "-subj", "/CN=stoke-test", "-days", "30",
    )  # fmt: skip
    names = [f"IP:{address}" for address in (layout.node, API_SERVICE, "127.0.0.1")]
    names += [
        f"DNS:{name}" for name in ("kubernetes.default.svc", "kubernetes.default", "localhost")
    ]
    _certify(folder, "server", f"subjectAltName={','.join(names)}")
    _certify(folder, "client", "extendedKeyUsage=clientAuth")
    # In this older form the API server takes the public key from the private one.
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "accounts.key")

    tokens = {name: secrets.token_hex(16) for name in USERS}
    lines = [
        f'{tokens[name]},{user},{user},"{",".join(groups)}"'
        for name, (user, groups) in USERS.items()
    ]
    _private(layout.folder / "tokens.csv", "\n".join(lines) + "\n")
    for name, token in tokens.items():
        _private(layout.kubeconfig(name), _kubeconfig(name, layout.server, layout.ca, token))
    # The same for the programs on the node, which know the folder by another name.
    for name in ("admin", "kubelet"):
        config = _kubeconfig(name, "https://127.0.0.1:443", CA_INSIDE, tokens[name])
        _private(layout.folder / f"{name}.inside", config)


def share(layout: Layout, second: Layout) -> None:
    """Writes what the second node needs to know of the cluster."""
    (second.folder / "pki").mkdir(mode=0o700)
    shutil.copy(layout.ca, second.ca)
    config = json.loads(layout.kubeconfig("second-kubelet").read_text())
    token = config["users"][0]["user"]["token"]
    kubeconfig = _kubeconfig("kubelet", layout.server, CA_INSIDE, token)
    _private(second.folder / "kubelet.inside", kubeconfig)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _certify(folder: Path, name: str, extension: str) -> None:
    """A key and a certificate by our own authority."""
    _openssl(
        folder, "req", *_NEW_KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr",
        "-subj", f"/CN=kube-apiserver-{name}",
    )  # fmt: skip
    (folder / f"{name}.ext").write_text(f"{extension}\n")
    _openssl(
        folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
        "-CAcreateserial", "-out", f"{name}.crt", "-days", "30", "-extfile", f"{name}.ext",
    )  # fmt: skip


def _openssl(folder: Path, *arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr.strip()}")


def _private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _kubeconfig(user: str, server: str, ca: Path, token: str) -> str:
    # JSON is YAML.
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "stoke-test",
            "clusters": [
                {
                    "name": "stoke-test",
                    "cluster": {"server": server, "certificate-authority": str(ca)},
                }
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [
                {
                    "name": "stoke-test",
                    "context": {"cluster": "stoke-test", "user": user, "namespace": NAMESPACE},
                }
            ],
        },
        indent=1,
    )
