"""What travels with a workflow: files and a command as one piece that no template can change.

In a variable it stands as base64, whose alphabet has neither `{` nor `$`: Argo replaces `{{...}}` in
every field of a workflow, for which there is no escape, and Kubernetes `$(...)` and `$$` in variables.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence

from stoke.files.untrusted import parse_json

FOLDER = "/stoke"
CARRIED = f"{FOLDER}/carried"
"""Where a bundle that is too long for a variable is mounted, as the file `bundle`."""
ONCE = f"{FOLDER}/once"
"""What `single_start.py` needs, where a job's code must not start a second time."""
KEY = "bundle"
LAST_WORDS = "/dev/termination-log"
"""Where Kubernetes reads why a container ended."""
VARIABLE = "STOKE_BUNDLE"
SPEC_VARIABLE = "STOKE_SPEC"
SECRET_PREFIX = "STOKE_SECRET_"  # noqa: S105
"""Begins the names of the variables in which the cluster puts secrets of its own."""
NOT_GIVEN = "stoke: not given: "
"""Begins the last words of a pod that lacks a secret its job asks for."""

# As text. Argo hands the whole template to its containers in one variable, and the system's limit for
# one is 128 KiB; 98,000 bytes in a variable of ours were measured to be too many.
MAX_INLINE = 90_000
# The spec stands there for whoever finds the job later; the job does without.
MAX_SPEC = 20_000
# A spec that is packed as well as any text can be.
MAX_UNPACKED = 64 * 1024**2
# Of a ConfigMap or a Secret; etcd takes 1.5 MiB with everything around it.
MAX_CARRIED = 1024**2

# Runs before everything else. Nothing a person wrote is in it.
BOOTSTRAP = f"""\
import base64, json, os, sys, zlib
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
secrets = {{}}
for name in list(os.environ):
    if name.startswith("ARGO_"):
        del os.environ[name]
    elif name.startswith("{SECRET_PREFIX}"):
        secrets[name] = os.environ.pop(name)
missing = sorted(name for name, where in head["secrets"].items() if where not in secrets)
if missing:
    with open("{LAST_WORDS}", "w") as file:
        file.write("{NOT_GIVEN}" + ", ".join(missing))
    sys.exit(1)
for name, where in head["secrets"].items():
    os.environ[name] = secrets[where]
os.execv(sys.executable, [sys.executable, "-I", "-S", *head["argv"]])
"""
COMMAND = ("python3", "-I", "-S", "-c", BOOTSTRAP)


def pack(
    files: Mapping[str, bytes], argv: Sequence[str], secrets: Mapping[str, str] | None = None
) -> bytes:
    """A bundle: `files` go into FOLDER, then Python runs `argv`. `secrets`: the variable that a secret
    goes into -> the one that the cluster puts it in; no other secret is handed on."""
    head = json.dumps(
        {
            "files": [[name, len(data)] for name, data in files.items()],
            "argv": list(argv),
            "secrets": dict(secrets or {}),
        }
    )
    whole = head.encode() + b"\n" + b"".join(files.values())
    return zlib.compress(whole, 9)


def as_text(packed: bytes) -> str:
    return base64.b64encode(packed).decode()


def pack_spec(spec: bytes) -> str | None:
    """None where it is too long to stand in the workflow."""
    packed = as_text(zlib.compress(spec, 9))
    return packed if len(packed) <= MAX_SPEC else None


def unpack_spec(packed: str) -> bytes | None:
    """None if it is not what we put there."""
    try:
        decoder = zlib.decompressobj()
        spec = decoder.decompress(base64.b64decode(packed[: 2 * MAX_SPEC]), MAX_UNPACKED)
        if not decoder.eof:
            return None
        parse_json(spec)
    except (ValueError, zlib.error):
        return None
    return spec
