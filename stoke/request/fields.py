"""The fields of a request, each declared once.

This table makes the options of the commands, the fields of the New job screen, the check of what a
backend can do, the rows of `stoke show` and of the job's Spec tab, the descriptions in the JSON schema,
and the command line for a request. The types are those of `JobSpec`, which has an attribute for each
field. Importing this module loads neither pydantic nor click, because `stoke --help` needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stoke.errors import RequestError
from stoke.request import values
from stoke.request.values import Value


@dataclass(frozen=True)
class Option:
    """The option that sets a field."""

    flags: tuple[str, ...]
    metavar: str = ""
    help: str = ""
    """For the command line where the field's own text does not fit; by default that text."""
    parameter: str = ""
    """click's name for its value; by default the last flag's."""
    once: bool = False
    """Whether giving it twice is an error; otherwise the last value counts."""
    alone: str = ""
    """The value of an option that is given without one. Another value follows a `=`."""
    changes_json: bool = False
    """Whether `stoke submit` has it too: it then wins over the field in the JSON."""

    @property
    def name(self) -> str:
        return self.parameter or self.flags[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Widget:
    """The field on the New job screen. `lines` above 1 make it a text area."""

    placeholder: str = ""
    note: str = ""
    """A line that is always below the field."""
    lines: int = 1
    chips: bool = False
    """Whether each item of the list is shown on its own."""
    folded: bool = True
    """Whether the field is in the section that is closed at first."""


@dataclass(frozen=True)
class Need:
    """What a backend must be able to do for a field."""

    capability: str
    """An attribute of `stoke.backend.api.Capabilities`."""
    lack: str
    """Completes "the NAME backend ..." where it cannot."""
    hint: str
    """What to do instead; {} is replaced by the variable's name."""
    prefix: str = ""
    """Only values of a table that begin so need it."""


@dataclass(frozen=True)
class Field:
    name: str
    """The JSON key; `index.url` is the key `url` in the object `index`."""
    label: str
    """In the form and in front of the value."""
    help: str
    value: Value
    option: Option | None = None
    setting: str = ""
    """The setting of config.toml that gives the value, for a field without an option."""
    widget: Widget | None = None
    need: Need | None = None


TRUST = "Jobs that share a scope can change each other's packages."
_LIMITS = Need("limits", "sets no limits", hint="choose a backend that does: -b docker")
_REQUESTS = Need(
    "pods",
    "reserves nothing for a job",
    hint="set limits instead: --cpu, --memory; or run on a cluster: -b argo",
)
_PODS = Need("pods", "runs no pods", hint="leave it out, or run on a cluster: -b argo")

FIELDS: tuple[Field, ...] = (
    Field(
        "code",
        "code",
        "Python code to run.",
        Value(),
        Option(
            ("-c",), "CODE", help="Run this code instead of a file.", parameter="code", once=True
        ),
    ),
    Field(
        "module",
        "module",
        "Module or package to run in place of code, as python -m does.",
        Value(),
        Option(
            ("-m", "--module"),
            "MODULE",
            help="Run a module of the project or of a package, as python -m does.",
            once=True,
        ),
        widget=Widget("in place of code: http.server"),
    ),
    Field(
        "exec",
        "program",
        "Program of the environment or of the project to run in place of code.",
        Value(),
        Option(
            ("--exec",),
            "PROGRAM",
            help="Run a program that a package or the project installs, such as pytest.",
            once=True,
        ),
        widget=Widget("in place of code: pytest"),
    ),
    Field(
        "shell",
        "shell",
        "Shell at the user's terminal in place of code.",
        values.Flag(False, "interactive"),
    ),
    Field(
        "project",
        "project",
        "Snapshot of the project that travels with the code.",
        values.ProjectSnapshot(),
    ),
    Field(
        "dependencies",
        "packages",
        "Python packages, each as PEP 508 describes it: pandas>=2,<3.",
        values.Requirements(),
        Option(
            ("-w", "--with"),
            "REQ",
            help="Python package, or a list of them: 'pandas>=2,<3'.",
            parameter="packages",
        ),
        widget=Widget("numpy, pandas>=2,<3", chips=True, folded=False),
    ),
    Field(
        "requirements",
        "requirements",
        "Text of a requirements file.",
        values.FileText(),
        Option(
            ("-r", "--requirements"),
            "FILE|URL",
            help="Requirements file with packages. Files that it names are read too.",
        ),
        widget=Widget("text of a requirements.txt", lines=4, folded=False),
    ),
    Field(
        "system",
        "system",
        "System packages by their attribute names in nixpkgs.",
        values.Names(),
        Option(
            ("-s", "--system"),
            "PKG",
            help="System package by its name in nixpkgs, or a list of them.",
        ),
        widget=Widget("gcc ffmpeg", chips=True, folded=False),
        need=Need(
            "system_packages",
            "has no system packages",
            hint="remove them, or choose a backend that has them: -b docker",
        ),
    ),
    Field(
        "constraints",
        "constraints",
        "Text of a constraints file: bounds for packages, whether requested or needed by others.",
        values.FileText(),
        Option(
            ("--constraints",),
            "FILE|URL",
            help="Constraints file: bounds for packages, whether requested or needed by others.",
        ),
        widget=Widget("urllib3<2, one per line", lines=3),
    ),
    Field(
        "locked",
        "lockfile",
        "The requirements pin and hash every package, and exactly these are installed.",
        values.Flag(False, "complete"),
        Option(
            ("--lock",),
            "FILE|URL",
            help="Lockfile: a pylock.toml, or a requirements file that pins and hashes every package. "
            "Installs exactly these packages.",
            once=True,
        ),
        widget=Widget("the requirements are a complete lockfile"),
    ),
    Field(
        "python",
        "python",
        "Python version: 3.12 or '>=3.11,<3.14'.",
        Value(),
        Option(("--python",), "VERSION"),
        widget=Widget("3.12 or >=3.11,<3.14"),
    ),
    Field(
        "args",
        "arguments",
        "Arguments of the code: sys.argv[1:].",
        values.Arguments(),
        widget=Widget(),
    ),
    Field(
        "env",
        "environment",
        "Environment variables for the code.",
        values.Variables(),
        Option(("--env",), "NAME=VALUE", help="Environment variable for the code."),
        widget=Widget("NAME=value, one per line", lines=3),
    ),
    Field(
        "secrets",
        "secrets",
        "Environment variables whose values are secret, each with where its value is read: env:NAME or "
        "file:/path when the job is submitted, secret:NAME/KEY by the cluster (argo).",
        values.References(),
        Option(
            ("--secret",),
            "NAME=REF",
            help="Environment variable with a secret value, read on submitting from env:NAME "
            "or file:/path, or by the cluster from secret:NAME/KEY (argo).",
        ),
        widget=Widget("NAME=env:OTHER or file:/path", lines=3),
        need=Need(
            "named_secrets",
            "has no secrets that a request can name",
            hint="have it read here: --secret {}=env:{}",
            prefix="secret:",
        ),
    ),
    Field(
        "mounts",
        "mounts",
        "Files and folders of this machine that the job sees, read-only unless :rw (local, docker), or "
        "claims of the cluster (argo): SRC:/path[:ro|:rw] or claim:NAME:/path[:ro|:rw].",
        values.Mounts(),
        Option(
            ("--mount",),
            "SRC:/PATH[:rw]",
            help="File or folder of this machine that the job sees at /PATH, read-only without :rw; "
            "on argo claim:NAME in place of SRC.",
            parameter="mounts",
        ),
        widget=Widget("./data:/data, one per line", lines=3),
    ),
    Field(
        "workspace",
        "workspace",
        "Named folder that outlives the job, which sees it at /workspace and $STOKE_WORKSPACE. A name "
        "that is not known yet makes a new one.",
        Value(),
        Option(
            ("--workspace",),
            "NAME",
            help="Named folder that outlives the job, at /workspace (local: $STOKE_WORKSPACE). A name "
            "that is not known yet makes a new one.",
            once=True,
        ),
        widget=Widget("name of a folder that outlives the job"),
        need=Need(
            "workspaces",
            "has no workspaces",
            hint="leave it out, or choose a backend that has them: -b docker",
        ),
    ),
    Field(
        "results",
        "results",
        "Patterns of files in the working directory, such as out/*.csv: those that are new or changed "
        "at the end are collected with what is in $STOKE_RESULTS.",
        values.Texts(),
        Option(
            ("--results",),
            "GLOB",
            help="Files of the working directory, such as 'out/*.csv', to collect at the end if they "
            "are new or changed, with what is in $STOKE_RESULTS.",
        ),
        widget=Widget("out/*.csv, one per line", lines=3),
    ),
    Field(
        "index.url",
        "index",
        "Address of the package index.",
        Value(),
        Option(("--index",), "URL", once=True),
    ),
    Field(
        "index.extra",
        "extra index",
        "Addresses of additional package indexes.",
        values.Texts(),
        Option(("--extra-index",), "URL", help="Address of an additional package index."),
    ),
    Field(
        "index.credentials",
        "index login",
        "Where user:password for the index is read when the job is submitted: env:NAME or file:/path.",
        Value(),
        Option(("--index-credentials",), "REF", once=True),
    ),
    Field(
        "index.proxy",
        "index proxy",
        "Proxy between the job and the package index.",
        Value(),
        setting="index.proxy",
    ),
    Field(
        "index.ca_bundle",
        "index CA",
        "File on this machine with the certificates that the package index is checked against.",
        Value(),
        setting="index.ca_bundle",
    ),
    Field(
        "nix",
        "nix",
        "Where system packages come from: a revision of nixpkgs, its hash, and binary caches.",
        values.Settings(),
        setting="nix",
    ),
    Field(
        "uv",
        "uv",
        "Settings of uv, recorded when the request was first submitted.",
        values.UvSettings(),
    ),
    Field(
        "timeout",
        "timeout",
        "End the job after this time: 90s, 5m or 1h30m.",
        values.Duration(),
        Option(("--timeout",), "TIME"),
        widget=Widget("90s, 5m, 1h30m"),
    ),
    Field(
        "cpu",
        "cpu",
        "CPU limit, in cores.",
        values.Number(),
        Option(("--cpu",), "N"),
        widget=Widget("0.5"),
        need=_LIMITS,
    ),
    Field(
        "memory",
        "memory",
        "Memory limit: 512m or 2g.",
        values.Size(),
        Option(("--memory",), "SIZE"),
        widget=Widget("512m, 2g"),
        need=_LIMITS,
    ),
    Field(
        "shm_size",
        "shm size",
        "Size of /dev/shm: 2g. By default the memory limit, or 8 GiB without one.",
        values.Size(),
        Option(("--shm-size",), "SIZE"),
        widget=Widget("2g"),
        need=_LIMITS,
    ),
    Field(
        "cpu_request",
        "cpu request",
        "CPU that is reserved for the job, in cores; by default as much as its limit.",
        values.Number(),
        Option(("--cpu-request",), "N"),
        widget=Widget("0.5"),
        need=_REQUESTS,
    ),
    Field(
        "memory_request",
        "mem request",
        "Memory that is reserved for the job: 512m or 2g; by default as much as its limit.",
        values.Size(),
        Option(("--memory-request",), "SIZE"),
        widget=Widget("512m, 2g"),
        need=_REQUESTS,
    ),
    Field(
        "gpu",
        "gpus",
        "Number of GPUs that the job has for itself.",
        values.Number(),
        Option(("--gpu",), "N"),
        widget=Widget("1"),
    ),
    Field(
        "profile",
        "profile",
        "Profile of the configuration with settings for the job's pod.",
        Value(),
        Option(("--profile",), "NAME"),
        widget=Widget("gpu"),
        need=_PODS,
    ),
    Field(
        "labels",
        "labels",
        "Labels of the job's Workflow and pod, or of its container.",
        values.Labels(),
        Option(("--label",), "KEY=VALUE", parameter="labels"),
        widget=Widget("team=vision, one per line", lines=3),
        need=Need("labels", "has no labels", hint="leave them out, or choose: -b docker"),
    ),
    Field(
        "annotations",
        "annotations",
        "Annotations of the job's Workflow and pod.",
        values.Labels(),
        Option(("--annotation",), "KEY=VALUE", parameter="annotations"),
        widget=Widget("example.com/owner=me, one per line", lines=3),
        need=_PODS,
    ),
    Field(
        "hold",
        "hold",
        "Keep the job's processes and files for this time if the code fails, for stoke exec: 1h.",
        values.Duration(),
        Option(
            ("--hold",),
            "TIME",
            help="If the code fails, keep its files for an hour, or for TIME (--hold=10m), and look "
            "inside with stoke exec.",
            alone="1h",
            changes_json=True,
        ),
        widget=Widget("after a failure: 1h"),
    ),
    Field(
        "retries",
        "retries",
        "Run the job again, at most this often, if it ended for a reason that is not its code's, such "
        "as a lost node.",
        values.Count(),
        Option(("--retries",), "N", changes_json=True),
        widget=Widget("3"),
    ),
    Field(
        "retry_exit",
        "retry exits",
        "Exit codes with which it is run again too: 1,75.",
        values.Numbers(),
        Option(("--retry-exit",), "CODES", changes_json=True),
        widget=Widget("1,75"),
    ),
    Field(
        "notify",
        "notify",
        "Run the program notify.command, or post to notify.webhook, when the job has ended.",
        values.Flag(False, "when it has ended"),
        Option(("--notify",), changes_json=True),
        widget=Widget("tell of the end"),
    ),
    Field(
        "image",
        "image",
        "Container image.",
        Value(),
        Option(("--image",), "IMAGE", changes_json=True),
        widget=Widget(),
        need=Need("images", "runs no images", hint="choose one that does: -b docker"),
    ),
    Field(
        "scope",
        "cache scope",
        "Scope whose caches the job uses and shares.",
        Value(),
        Option(("--scope",), "SCOPE", changes_json=True),
        widget=Widget(note=TRUST),
    ),
    Field(
        "use_cache",
        "cache",
        "Take packages from the cache, and keep new ones there.",
        values.Flag(True, "not used"),
        Option(
            ("--no-cache",),
            help="Build everything anew, and keep nothing in the cache.",
            changes_json=True,
        ),
        widget=Widget("use the cache"),
    ),
)


def get_value(request: Any, name: str) -> Any:
    """Return the value of a field of a `JobSpec` or of its JSON; None where it is missing."""
    for key in name.split("."):
        request = request.get(key) if isinstance(request, Mapping) else getattr(request, key, None)
    return request


def put_value(request: dict[str, Any], name: str, value: Any) -> None:
    """Set a field in the JSON of a request."""
    *outer, key = name.split(".")
    for one in outer:
        request = request.setdefault(one, {})
    request[key] = value


def set_fields(request: Any) -> Iterator[tuple[Field, Any]]:
    """Yield each field that a `JobSpec` or its JSON sets, with its value."""
    for field in FIELDS:
        value = get_value(request, field.name)
        if field.value.is_set(value):
            yield field, value


def rows(request: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Return (label, lines) of each field that the JSON of a request sets, except its code.

    Values that look secret are masked. The texts are not sanitized.
    """
    return [
        (field.label, field.value.to_lines(value))
        for field, value in set_fields(request)
        if field.name != "code"
    ]


def masked_fields(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON of a request with the values masked whose names look secret."""
    masked = dict(request)
    for field, value in set_fields(request):
        if isinstance(field.value, values.Variables) and isinstance(value, Mapping):
            put_value(masked, field.name, field.value.masked(value))
    return masked


# --- what a backend can do -----------------------------------------------------------------------


def unsupported(backend: str, capabilities: object) -> dict[str, str]:
    """Return the fields that a backend cannot honour whatever their value, each with the reason."""
    return {
        field.name: f"{backend} {field.need.lack}"
        for field in FIELDS
        if field.need and not field.need.prefix and not getattr(capabilities, field.need.capability)
    }


def refusals(request: Any, backend: str, capabilities: object) -> Iterator[RequestError]:
    """Yield an error for each set field of a request that a backend cannot honour."""
    for field, value in set_fields(request):
        need = field.need
        if need is None or getattr(capabilities, need.capability):
            continue
        why = f"the {backend} backend {need.lack}"
        if not need.prefix:
            yield RequestError(field.name, why, need.hint)
            continue
        for name, text in value.items():
            if text.startswith(need.prefix):
                yield RequestError(f"{field.name}.{name}", why, need.hint.format(name, name))
