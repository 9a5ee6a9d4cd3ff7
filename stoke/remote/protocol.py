"""The contract between the programs that run inside jobs and the rest of stoke, defined once.

It travels into jobs: Python 3.9, standard library only, and cheap to load.
`stoke.remote.schema` has the types of the payload.
"""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

PAYLOAD_VERSION = 1
"""The version of `stoke.remote.schema.Payload`; the runner refuses any other."""

EXIT_TIMEOUT = 124
"""The job reached its timeout."""
EXIT_ENVIRONMENT = 125
"""The environment failed before the code began."""

Hint = tuple[str, ...]
"""(a `HintCode`, its parameters). Text from inside a job is never shown as a hint."""


# ---------------------------------------------------------------------------- how the runner starts


class RunnerOption:
    """Options of the runner; its first argument is the path of the payload."""

    WORK = "--work"  # a folder for the job's own files
    CACHE = "--cache"  # the scope's Python volume; without it the job builds in its work folder
    UV = "--uv"  # the path of uv; without it the runner looks on PATH, then downloads it
    # The network namespace and the cgroup are the job's own: received bytes and out-of-memory kills
    # can be told from those of others.
    CONTAINER = "--container"
    NIX = "--nix"  # /nix is the scope's system volume, or a folder of this job only
    # All files are the job's own, as in a container: the user's code gets the image's interpreter and
    # PYTHON variables. Without it, code without packages runs in an empty environment.
    OWN_FILES = "--own-files"
    TAGGED = "--tagged"  # write both streams into stdout, with markers
    PACK = "--pack"  # contents of the project that the cache volume lacks (stoke.project.pack)
    WORKSPACE = "--workspace"  # the folder of the job's workspace
    RESULTS = "--results"  # the folder whose content the submitting machine collects at the end
    CA_BUNDLE = "--ca-bundle"  # a file in place of the payload's index.ca_bundle
    INPUTS = "--inputs"  # a file with the results of the jobs that this one follows
    # The job's copy of its project stays on the cache volume for the next job of that project.
    KEEP_COPY = "--keep-copy"
    FLAGS = (CONTAINER, NIX, OWN_FILES, TAGGED, KEEP_COPY)
    """Options without a value."""


class JobFolder:
    """Names in a job's own folder."""

    WORK = "work"  # what the runner makes
    FILES = "files"  # in WORK: the code, and the working directory of a job without a project
    PROJECT = (
        "project"  # in WORK: the job's copy of its project, unless that is on the cache volume
    )
    RESULTS = "results"  # the results, where a job has no folder of its own for them
    INPUTS = "inputs"  # in WORK: the results of the jobs that this one follows
    ENTRY = "entry"  # in WORK: where stoke.remote.session finds the code's variables and folder
    SHELL = "shell"  # in WORK: the pipe through which a shell's exit code reaches the runner


class JobVariable:
    """Variables that the user's code finds, each the path of a folder."""

    RESULTS = "STOKE_RESULTS"
    CHECKPOINT = "STOKE_CHECKPOINT"
    INPUTS = "STOKE_INPUTS"


RESULTS_MOUNT = "/mnt/results"
"""The folder of a job's results in containers and pods."""
PARTIAL_RESULT = ".stoke-partial-"
"""The beginning of the name of a result that is still being copied; it is not collected."""


WORKSPACE_VARIABLE = "STOKE_WORKSPACE"
"""The variable with the path of the job's workspace."""


# ---------------------------------------------------------------------------- stream markers

STREAM_MARK = b"\x1e"
"""Begins a record of a tagged log. `stoke.remote.runner.streams.Tagged` describes the records."""
STREAM_ENDS = ((b"\x1c\n", b"\x1d\n"), (b"\x1e\n", b"\x1f\n"))
"""For stdout and stderr: the end of a record without and with a newline of the job's own."""


# ---------------------------------------------------------------------------- events


class EventKind:
    BEGIN = "begin"
    PHASE = "phase"
    PACKAGES = "packages"
    NOTE = "note"
    ERROR = "error"
    PROGRESS = "progress"  # of a phase that prepares packages
    USAGE = "usage"  # of the running code: cores since the last one, bytes of memory now
    END = "end"


class ProgressStage:
    FETCH = "fetch"  # "packages" are those that the cache lacks; "left" names some large ones
    BUILD = "build"  # "packages" are those that are being built; "left" names some
    INSTALL = "install"
    ALL = (FETCH, BUILD, INSTALL)


NUMBER = (int, float)
EVENT_FIELDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    EventKind.BEGIN: {"phase": str, "time": NUMBER},
    EventKind.PHASE: {
        "phase": str,
        "start": NUMBER,
        "seconds": NUMBER,
        "hit?": bool,
        "packages?": int,
        "cached?": int,
        "files?": int,
        "bytes?": int,
        "key?": str,
        "made_at?": NUMBER,
    },
    EventKind.PACKAGES: {"phase": str, "hit": list, "miss": list},
    EventKind.NOTE: {"text": str},
    EventKind.ERROR: {"phase": str, "text": str, "hint?": list, "tail?": str},
    EventKind.PROGRESS: {
        "phase": str,
        "stage": str,
        "packages": int,
        "left": list,
        "bytes?": int,
        "total?": int,
        "seconds?": int,
    },
    EventKind.USAGE: {"time": NUMBER, "cores": NUMBER, "memory": int},
    EventKind.END: {
        "time": NUMBER,
        "exit_code": int,
        "reason?": str,
        "cpu_seconds?": NUMBER,
        "peak_memory?": int,
        "held?": NUMBER,
    },
}
"""The fields of each kind of event. A field whose name ends in "?" may be null or missing."""


SEPARATOR = b"\x1e"


def frame_start(nonce: str) -> bytes:
    """Return the bytes that begin an event frame of the job with this nonce."""
    return b"\n" + SEPARATOR + nonce.encode()


def frame(nonce: str, event: Mapping[str, object]) -> bytes:
    """Return an event as it is written into a log."""
    return frame_start(nonce) + json.dumps(event, separators=(",", ":")).encode() + b"\n"


class HintCode:
    """The hints that the runner can give; `stoke.remote.hints` has the text and parameters of each."""

    ADD_HASHES = "add-hashes"
    CHECK_HASHES = "check-hashes"
    CHECK_NETWORK = "check-network"
    CHECK_NIX_NETWORK = "check-nix-network"
    CLEAR_SYSTEM = "clear-system"
    CONTAINERS_LOOPBACK = "containers-loopback"
    DID_YOU_MEAN = "did-you-mean"  # package names, ", " between
    FREE_SPACE = "free-space"  # a path
    HAS_PROGRAM = "has-program"
    IMAGE_WITH_NIX = "image-with-nix"
    IMAGE_WITH_PYTHON = "image-with-python"  # a version
    IMAGE_WITH_UV = "image-with-uv"
    INDEX_ORDER = "index-order"  # a package, the index that has it, the index to ask first
    MACHINE_MEMORY = "machine-memory"
    MORE_MEMORY = "more-memory"  # a value of --memory
    NO_COMPILER = "no-compiler"
    NIXPKGS_NAMES = "nixpkgs-names"
    NIX_PAIR = "nix-pair"
    OWN_NIX = "own-nix"
    PRE_LINE = "pre-line"  # a package
    PRE_RELEASE = "pre-release"  # a package, a version
    PRUNE_PYTHON = "prune-python"
    PRUNE_SYSTEM = "prune-system"
    RUN_IN_DOCKER = "run-in-docker"
    SEND_AGAIN = "send-again"
    TRUST_INDEX = "trust-index"


# ---------------------------------------------------------------------------- cache volumes

METADATA = "stoke-environment.json"
"""In the folder of an environment or a set of system packages. Without it, the folder is damaged."""
MAX_METADATA = 16 * 1024**2
"""Bytes that are read of a file on a volume: jobs can write there, so reading needs a limit."""
LOCK_SUFFIX = ".lock"
PROJECT_COPY = r"[0-9a-f]{16}\.[0-9]{1,2}"
"""The pattern of a name in `PythonLayout.PROJECT_COPIES`."""
UNFINISHED_SUFFIX = ".tmp"
"""Of a folder that is being built; it loses the suffix once it is complete."""


class PythonLayout:
    """Names on a scope's Python volume."""

    # KEY.txt: requirements with hashes, sealed (stoke/remote/common/seal.py). KEY is the hash of the
    # request and the interpreter.
    LOCKFILES = "locks"
    # KEY/: a complete environment; it is built as KEY.tmp and renamed. KEY.lock is held shared while a
    # job uses KEY, and exclusively while KEY is built or removed. Each use appends a byte to it, so
    # its size is the number of uses and its time that of the last one.
    ENVIRONMENTS = "venvs"
    # HASH: the key of the environment that last answered the request with this hash.
    REQUESTS = "requests"
    UV_CACHE = "uv"  # environments are hard links into it
    PROGRAMS = "bin"  # uv, for images without it
    # NAME/: the checkpoint of the jobs with this name.
    CHECKPOINTS = "checkpoints"
    # JOB/: the results of a job on a cluster, until they are collected.
    RESULTS = "results"
    INTERPRETERS = "pythons"  # interpreters that uv manages
    SNAPSHOTS = "snapshots"
    # AB/CDEF...: the content with the SHA-256 ABCDEF..., read-only: files of projects, and manifests.
    SNAPSHOT_OBJECTS = "snapshots/objects"
    # DIGEST: an empty file for each snapshot; its time is that of the last use.
    SNAPSHOT_USES = "snapshots/used"
    # PROJECT.N/: the files of a job. PROJECT.N.lock is held exclusively while a job has them, and while
    # they are removed; it counts uses as KEY.lock does. PROJECT.N.json says how to recognize the files
    # that nothing changed (stoke/remote/runner/project_copy.py).
    PROJECT_COPIES = "snapshots/copies"
    # Held shared while a job takes files out of snapshots/, and exclusively while some are removed.
    SNAPSHOT_LOCK = "snapshots.lock"
    # Held shared by every job, and exclusively while everything is removed.
    IN_USE_LOCK = "in-use.lock"


class SystemLayout:
    """Names on a scope's system volume, beside those of Nix itself."""

    MOUNT = "/nix"  # Nix's paths are absolute
    # KEY/: a link for each package; complete or missing, as an environment. They are roots for Nix's
    # garbage collection, so a job that only uses a complete set needs only the lock of the set.
    SETS = "var/nix/gcroots/jobs"
    DATABASE = "var/nix/db"
    # KEY.lock and requests/HASH, as on a Python volume.
    STATE = "var/stoke"
    REQUESTS = "requests"
    # In STATE. Held shared while anything is added to the store, and exclusively while garbage is
    # collected. Taken after KEY.lock.
    COLLECT_LOCK = "gc.lock"
    INIT_LOCK = "init.lock"
