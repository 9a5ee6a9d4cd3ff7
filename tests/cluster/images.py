"""Images on the node: those of the Docker engine, and one of our own that holds a single program."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

EXECUTOR_IMAGE = "stoke-test/argo-standin:1"
# The same program holds the namespaces of every pod.
PAUSE_IMAGE = "stoke-test/pause:1"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def import_from_docker(socket: Path, image: str) -> None:
    """`RuntimeError` when the engine has none of that name."""
    with subprocess.Popen(
        ["docker", "save", image], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as saving:
        assert saving.stdout is not None
        assert saving.stderr is not None
        done = subprocess.run(_ctr(socket), stdin=saving.stdout, capture_output=True)
        complaint = saving.stderr.read()
    if saving.returncode or done.returncode:
        said = (complaint + done.stderr).decode(errors="replace").strip()
        raise RuntimeError(f"image {image} cannot be brought to the node: {said}")


def import_executor(socket: Path, executor: Path) -> None:
    """The images that hold the static program `executor` and nothing else."""
    for name, command in ((PAUSE_IMAGE, ["/executor", "pause"]), (EXECUTOR_IMAGE, ["/executor"])):
        image = _image(name, executor, command)
        done = subprocess.run(_ctr(socket), input=image, capture_output=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            raise RuntimeError(f"image {name} cannot be brought to the node: {said}")


def _ctr(socket: Path) -> list[str]:
    return ["ctr", "--address", str(socket), "--namespace", "k8s.io", "images", "import", "-"]


def _image(name: str, program: Path, command: list[str]) -> bytes:
    """In the form of `docker save`."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        info = tar.gettarinfo(program, "executor")
        info.mode, info.uid, info.gid, info.uname, info.gname = 0o755, 0, 0, "", ""
        with program.open("rb") as file:
            tar.addfile(info, file)
    digest = hashlib.sha256(layer.getvalue()).hexdigest()
    config = {
        "architecture": ARCHITECTURES[platform.machine()],
        "os": "linux",
        "config": {"Entrypoint": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    image = io.BytesIO()
    with tarfile.open(fileobj=image, mode="w") as tar:
        for path, content in (
            ("layer.tar", layer.getvalue()),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return image.getvalue()
