"""What travels with a workflow: files and a command, packed so that no template can change them.

A variable holds it as base64, whose alphabet has neither `{` nor `$`. Argo replaces `{{...}}` in every
field of a workflow and has no escape for it; Kubernetes replaces `$(...)` and `$$` in variables.
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
"""The file in which Kubernetes reads why a container ended."""
VARIABLE = "STOKE_BUNDLE"
SPEC_VARIABLE = "STOKE_SPEC"
SECRET_PREFIX = "STOKE_SECRET_"  # noqa: S105
"""The prefix of variables that hold the cluster's own secrets."""
NOT_GIVEN = "stoke: not given: "
"""The beginning of `LAST_WORDS` of a pod without a secret that its job requests."""

MAX_INLINE = 90_000
"""Characters of a bundle in a variable. Argo passes the whole template to its containers in one
variable, which Linux limits to 128 KiB; 98,000 characters in ours were measured to be too many."""
MAX_SPEC = 20_000
"""Characters of the spec, which other stoke processes read; a job runs without it."""
MAX_UNPACKED = 64 * 1024**2
"""Bytes of an unpacked spec: the packed one can hold no more."""
MAX_CARRIED = 1024**2
"""Bytes of a ConfigMap or a Secret; etcd takes 1.5 MiB, with metadata."""

# Runs before everything else in the pod. It contains no user text.
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
    """Return a bundle that writes `files` into FOLDER, then runs Python with `argv`.

    `secrets` is the variable that a secret goes into -> the one in which the cluster provides it. The
    bundle passes on no other secret.
    """
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
    """Return the spec as text for a variable; None if it is too long."""
    packed = as_text(zlib.compress(spec, 9))
    return packed if len(packed) <= MAX_SPEC else None


def unpack_spec(packed: str) -> bytes | None:
    """Return the spec from the text of a variable; None if it is damaged."""
    try:
        decoder = zlib.decompressobj()
        spec = decoder.decompress(base64.b64decode(packed[: 2 * MAX_SPEC]), MAX_UNPACKED)
        if not decoder.eof:
            return None
        parse_json(spec)
    except (ValueError, zlib.error):
        return None
    return spec
