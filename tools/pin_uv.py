"""Pin the static uv for images without uv: write stoke/remote/uv_wheels.json from the locked version.

The wheels are downloaded by pip and accepted only with a hash that requirements/run.txt lists.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

TOP = Path(__file__).parent.parent
PLATFORMS = {"x86_64": "musllinux_1_1_x86_64", "aarch64": "musllinux_1_1_aarch64"}


def main() -> None:
    lock = (TOP / "requirements/run.txt").read_text()
    entry = re.search(r"(?m)^uv==(\S+)((?: \\\n +--hash=sha256:[0-9a-f]{64})+)", lock)
    if not entry:
        sys.exit("requirements/run.txt does not pin uv")
    version, hashes = entry[1], set(re.findall(r"sha256:([0-9a-f]{64})", entry[2]))
    wheels = {}
    for machine, platform in PLATFORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            download = ["python3", "-m", "pip", "download", "--quiet", "--no-deps"]
            only = ["--only-binary", ":all:", "--platform", platform, "--dest", folder]
            subprocess.run([*download, *only, f"uv=={version}"], check=True)
            (wheel,) = Path(folder).iterdir()
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if digest not in hashes:
            sys.exit(f"{wheel.name} has a hash that requirements/run.txt does not list")
        wheels[machine] = {"name": wheel.name, "sha256": digest}
    text = json.dumps({"version": version, "wheels": wheels}, indent=2) + "\n"
    (TOP / "stoke/remote/uv_wheels.json").write_text(text)


if __name__ == "__main__":
    main()
