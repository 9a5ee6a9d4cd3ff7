"""The bundle that travels with a workflow: files and a command as one blob that no template can
change.

In an environment variable the bundle is base64, whose alphabet has neither `{` nor `$`: Argo
replaces `{{...}}` in every field of a workflow and has no escape for it, and Kubernetes replaces
`$(...)` and `$$` in variables.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence

from stoke.files.untrusted import parse_json

FOLDER = "/stoke"
CARRIED = f"{FOLDER}/carried"
"""The mount point of a bundle that is too long for a variable; the file is called `bundle`."""
PARTS = f"{FOLDER}/parts"
"""The mount point of the parts of long files, a file each."""
PACK = "pack"
INPUTS = "inputs"
CA_BUNDLE = "ca.pem"
ONCE = f"{FOLDER}/once"
"""The mount point of what `single_start.py` needs (`argo.at_most_once`)."""
KEY = "bundle"
TERMINATION_LOG = "/dev/termination-log"
"""The file from which Kubernetes reads a container's termination message."""
VARIABLE = "STOKE_BUNDLE"
SPEC_VARIABLE = "STOKE_SPEC"
SECRET_PREFIX = "STOKE_SECRET_"  # noqa: S105
"""Prefix of the variables into which the cluster puts its own secrets."""
MISSING_SECRETS = "stoke: not given: "
"""Prefix of the termination message of a pod that lacks a secret its job asks for."""

CHANGED = "stoke: changed: "
"""Prefix of the termination message of a pod that got a changed ConfigMap, which it names."""
PART_PREFIX = "stoke-pack-"
"""Prefix of the names of ConfigMaps with parts; the hash of their content follows."""

BEGAN = "stoke: began"
"""The termination message of a pod whose container has run our code: a node may have rotated away
the whole log that would tell it."""

# Characters of base64. Argo passes the whole template to its containers in one variable, and Linux
# limits a variable to 128 KiB; 98,000 bytes in our variable were measured to be too many.
MAX_INLINE = 90_000
# Clients that find the job read the spec there; the job itself does not need it.
MAX_SPEC = 20_000
# Unpacked bytes of the most compressible spec.
MAX_UNPACKED = 64 * 1024**2
# Bytes in a ConfigMap or a Secret; etcd accepts 1.5 MiB including everything around them.
MAX_CARRIED = 1024**2
"""Bytes of a ConfigMap or a Secret; etcd takes 1.5 MiB, with metadata."""

# Runs first in the pod. It contains no user text.
BOOTSTRAP = f"""\
import base64, hashlib, json, os, sys, zlib
try:
    with open("{TERMINATION_LOG}", "w") as file:
        file.write("{BEGAN}")
except OSError:
    pass
os.environ.pop("{SPEC_VARIABLE}", None)
bundle = os.environ.pop("{VARIABLE}", None)
if not bundle:
    with open("{CARRIED}/{KEY}", "rb") as file:
        bundle = file.read()
else:
    bundle = base64.b64decode(bundle)
head, _, rest = zlib.decompress(bundle).partition(b"\\n")
head = json.loads(head)
for name, size in head["files"]:
    to = os.open(os.path.join("{FOLDER}", name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(to, "wb") as file:
        file.write(rest[:size])
    rest = rest[size:]
number = 0
for name, parts in head.get("parts", ()):
    stream = None
    with open(os.path.join("{FOLDER}", name), "ab") as file:
        for part_name in parts:
            with open("{PARTS}/%04d" % number, "rb") as part:
                data = part.read()
            number += 1
            if hashlib.sha256(data).hexdigest()[:40] not in part_name:
                with open("{TERMINATION_LOG}", "w") as log:
                    log.write("{CHANGED}" + part_name)
                sys.exit(1)
            while data:
                stream = stream or zlib.decompressobj()
                file.write(stream.decompress(data))
                data = stream.unused_data
                stream = None if stream.eof else stream
secrets = {{}}
for name in list(os.environ):
    if name.startswith("ARGO_"):
        del os.environ[name]
    elif name.startswith("{SECRET_PREFIX}"):
        secrets[name] = os.environ.pop(name)
missing = sorted(name for name, where in head["secrets"].items() if where not in secrets)
if missing:
    with open("{TERMINATION_LOG}", "w") as file:
        file.write("{MISSING_SECRETS}" + ", ".join(missing))
    sys.exit(1)
for name, where in head["secrets"].items():
    os.environ[name] = secrets[where]
os.execv(sys.executable, [sys.executable, "-I", "-S", *head["argv"]])
"""
COMMAND = ("python3", "-I", "-S", "-c", BOOTSTRAP)


def part_name(number: int) -> str:
    """Return the name of the file with a part of a long file."""
    return f"{number:04}"


def pack(
    files: Mapping[str, bytes],
    argv: Sequence[str],
    secrets: Mapping[str, str] | None = None,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> bytes:
    """Return a bundle whose `files` are written into FOLDER before Python runs `argv`.

    `secrets` maps each variable of the job to the variable that the cluster fills. No other secret
    reaches the job. `parts` are the files of FOLDER that come compressed in parts, in their order below
    PARTS, with the names of the ConfigMaps that hold them.
    """
    head = json.dumps(
        {
            "files": [[name, len(data)] for name, data in files.items()],
            "argv": list(argv),
            "secrets": dict(secrets or {}),
            **({"parts": list(parts.items())} if parts else {}),
        }
    )
    whole = head.encode() + b"\n" + b"".join(files.values())
    return zlib.compress(whole, 9)


def as_text(packed: bytes) -> str:
    return base64.b64encode(packed).decode()


def pack_spec(spec: bytes) -> str | None:
    """Return the spec as text for a variable, or None if it is too long."""
    packed = as_text(zlib.compress(spec, 9))
    return packed if len(packed) <= MAX_SPEC else None


def unpack_spec(packed: str) -> bytes | None:
    """Return the spec that `pack_spec` packed, or None for anything else."""
    try:
        decoder = zlib.decompressobj()
        spec = decoder.decompress(base64.b64decode(packed[: 2 * MAX_SPEC]), MAX_UNPACKED)
        if not decoder.eof:
            return None
        parse_json(spec)
    except (ValueError, zlib.error):
        return None
    return spec
