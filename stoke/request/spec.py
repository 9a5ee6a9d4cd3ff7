"""JobSpec: the checked form of a request. `stoke.request.fields` describes its fields for people."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from stoke.errors import RequestError
from stoke.request.quantities import Cores, ExitCode, Gpus, Memory, Retries, Seconds
from stoke.request.requirement import RequirementError, check_requirement
from stoke.request.requirements_text import (
    Entry,
    ParsedRequirements,
    parse_constraints,
    parse_requirements,
)
from stoke.request.source_code import check_encodable, check_is_code
from stoke.request.uv_settings import UvSetting, check_setting
from stoke.request.values import References
from stoke.request.workspace_name import WORKSPACE, check_workspace_name
from stoke.text.units import exact_number, human_bytes
from stoke.text.urls import AddressFault, address_fault, split_login

MAX_CODE = 8 * 1024**2
HIDDEN = "***"

_SCOPE = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYSTEM = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*(\.[A-Za-z0-9_][A-Za-z0-9_'-]*)*")
_NIX_HASH = re.compile(r"sha256-[A-Za-z0-9+/]{43}=|(sha256:)?([0-9a-f]{64}|[0-9a-df-np-sv-z]{52})")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,510}")
_PYTHON = re.compile(r"\s*+(?:(?:~=|==|!=|<=|>=|<|>)\s*+\d+|3)(\.\d+){0,2}(\.\*)?\s*", re.ASCII)
# At most 255 characters, as names of files.
_MODULE = re.compile(r"(?!.{256})\w[\w-]*(\.\w[\w-]*)*")
_PROGRAM = re.compile(r"(?!.{256})[\w][\w.+-]*")
_REFERENCE = re.compile(r"(env|file):.+")
_ENGINES_SECRET = re.compile(r"secret:[a-z0-9][a-z0-9.-]{0,252}/[A-Za-z0-9._-]{1,253}")


def check_scope(name: str) -> str:
    if not _SCOPE.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a scope name; use up to 40 of a-z, 0-9 and -, not at its ends"
        )
    return name


def _utf8(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"has half a surrogate pair at character {error.start}") from None
    if "\0" in text:
        raise ValueError(f"has a NUL at character {text.index(chr(0))}")
    return text


def _read_profile(value: Any) -> Any:
    if isinstance(value, str) and len(value) > 40:
        raise ValueError(
            f"{value[:80]!r} is not the name of a profile; name a table in argo.profiles, whose name "
            "has at most 40 characters"
        )
    return value


def _check_labels(labels: dict[str, str]) -> dict[str, str]:
    from stoke.request.labels import check_labels

    return check_labels(labels)


def _check_annotations(annotations: dict[str, str]) -> dict[str, str]:
    from stoke.request.labels import check_annotations

    return check_annotations(annotations)


Text = Annotated[str, AfterValidator(_utf8)]
Scope = Annotated[str, AfterValidator(check_scope)]
Labels = Annotated[dict[str, Text], AfterValidator(_check_labels)]
Annotations = Annotated[dict[str, Text], AfterValidator(_check_annotations)]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IndexSettings(Model):
    """The package index that a request resolves against. Only the lock and python phases see it.

    An address never holds a password: `credentials` says where `user:password` is, `env:NAME` or
    `file:/path`, which is read when the job is submitted.
    """

    url: Text | None = None
    extra: tuple[Text, ...] = ()
    credentials: Text | None = None
    """Sent to `url`, or to the extra indexes when `url` is not set."""
    proxy: Text | None = None
    ca_bundle: Text | None = None
    """A file on the submitting machine; its text travels with the job."""

    @field_validator("url", "proxy")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        return None if url is None else _check_address(url)

    @field_validator("extra")
    @classmethod
    def _addresses(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_check_address(url) for url in urls)

    @field_validator("credentials")
    @classmethod
    def _reference(cls, reference: str | None) -> str | None:
        return None if reference is None else _check_reference(reference)


class NixSettings(Model):
    """Where system packages come from: a revision of nixpkgs, fixed by its hash, and binary caches.

    The hash is that of the unpacked archive, as `nix-prefetch-url --unpack URL` prints it. Binary
    caches and keys replace the defaults of Nix; None keeps these.
    """

    # nixos-25.11, in May 2026. For another revision set both.
    url: Text = (
        "https://github.com/NixOS/nixpkgs/archive/25f538306313eae3927264466c70d7001dcea1df.tar.gz"
    )
    sha256: str = "sha256-ZsIrKmhp4vbBXoXXmR/tBXA/UCsAQiJL9vsgZEduhVY="
    substituters: tuple[Text, ...] | None = None
    trusted_keys: tuple[str, ...] | None = None

    @field_validator("url")
    @classmethod
    def _address(cls, url: str) -> str:
        return _check_address(url)

    @field_validator("sha256")
    @classmethod
    def _hash(cls, text: str) -> str:
        if not _NIX_HASH.fullmatch(text):
            raise ValueError(f"{text[:80]!r} is not a hash in a form that Nix prints")
        return text

    @field_validator("substituters")
    @classmethod
    def _substituters(cls, addresses: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for address in addresses or ():
            if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[!-~]+", address):
                raise ValueError("is not an address; write https://host/path")
            if split_login(address)[0]:
                raise ValueError("holds a password, which would be stored with the job")
        return addresses

    @field_validator("trusted_keys")
    @classmethod
    def _keys(cls, keys: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for key in keys or ():
            if not re.fullmatch(r"[A-Za-z0-9._-]+:[A-Za-z0-9+/]{43}=", key):
                raise ValueError(f"{key[:80]!r} is not a public key for Nix; write name:base64")
        return keys

    @model_validator(mode="after")
    def _pair(self) -> NixSettings:
        given = self.model_fields_set
        if "url" in given and "sha256" not in given:
            raise ValueError(
                "sha256 is missing beside url; obtain it: docker run --rm stoke-python:3.13 "
                f"nix-prefetch-url --unpack {self.url}"
            )
        if "sha256" in given and "url" not in given:
            raise ValueError(
                "url is missing beside sha256; write the archive of a revision: "
                "https://github.com/NixOS/nixpkgs/archive/REVISION.tar.gz"
            )
        return self


class ProjectPackages(Model):
    """What a request says about packages itself, before those of its project are added."""

    groups: tuple[Text, ...] = ()
    extras: tuple[Text, ...] = ()
    dev: bool = True
    """Whether the project's group "dev" is included."""
    dependencies: tuple[str, ...] = ()
    requirements: Text = ""
    locked: bool = False
    python: str | None = None


class Project(Model):
    """The project that travels with the code, and the snapshot of it that was submitted."""

    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Identifies the snapshot. None before submission: the folder is taken as it is then."""
    root: Text
    """The project's folder on the submitting machine."""
    directory: Text = "."
    """The working directory, relative to the root."""
    script: Text | None = None
    """The path of the script, relative to the root; None for code that is no file of the project."""
    import_path: tuple[Text, ...] = ()
    """Folders, relative to the root, that the interpreter imports from besides the script's own."""
    programs: tuple[Text, ...] = ()
    """Folders, relative to the root, whose programs are on PATH."""
    compiled: tuple[tuple[Text, Text], ...] = ()
    """Packages with modules to compile: the folder of each, and that it is imported from, relative to
    the root."""
    include: tuple[Text, ...] = ()
    """Patterns of .gitignore for files that travel although a rule leaves them out."""
    exclude: tuple[Text, ...] = ()
    """Patterns of files that are left out."""
    asked: ProjectPackages | None = None
    """What `stoke rerun --fresh` adds the project's packages to; None for a request that got none."""
    imports_only: bool = False
    """Whether only the script and the modules beside it that it imports travel, not the whole root."""
    files: int = Field(default=0, ge=0)
    bytes: int = Field(default=0, ge=0)

    @field_validator("root")
    @classmethod
    def _root(cls, root: str) -> str:
        if not root.startswith("/"):
            raise ValueError(f"{root!r} is not an absolute path")
        return root

    @field_validator("directory", "script")
    @classmethod
    def _inside(cls, path: str | None) -> str | None:
        if path is not None and (path.startswith("/") or ".." in path.split("/")):
            raise ValueError(f"{path!r} is not a path inside the root")
        return path


def _check_address(url: str) -> str:
    # The address is not repeated in either error: it may hold a password.
    fault = address_fault(url, ("https", "http", "socks5", "socks5h"))
    if fault is AddressFault.PASSWORD:
        raise ValueError(
            "holds a password, which would be stored with the job; put user:password into a variable "
            "and refer to it: --index-credentials env:NAME"
        )
    if fault is not None:
        raise ValueError("is not a web address; write https://host/path")
    return url


def _check_reference(reference: str, form: str = "env:NAME or file:/path") -> str:
    if not _REFERENCE.fullmatch(reference):
        # Its text is not repeated: most likely it is the secret itself.
        raise ValueError(f"does not say where the secret is; write {form}")
    return reference


# Every step from validation to the payload parses the same text.
_parsed = lru_cache(maxsize=4)(parse_requirements)
_parsed_constraints = lru_cache(maxsize=4)(parse_constraints)


class JobSpec(Model):
    """One request: the JSON that `stoke submit` reads, and `spec` in `stoke show --json`."""

    code: Text = ""
    module: Text | None = None
    """The module or package to run, as `python -m` does. A request has one of code, module, exec."""
    exec: Text | None = None
    """The program to run: one that a package of the environment or the project installs."""
    shell: bool = False
    """Whether a shell at the user's terminal takes the place of the code."""
    project: Project | None = None
    args: tuple[Text, ...] = ()
    dependencies: tuple[str, ...] = ()
    """PEP 508, each exactly as written."""
    requirements: Text = ""
    """The text of a requirements file."""
    constraints: Text = ""
    """The text of a constraints file."""
    locked: bool = False
    """Whether `requirements` is a complete lockfile, and exactly its packages are installed."""
    system: tuple[str, ...] = ()
    """Attribute names in nixpkgs."""
    python: str | None = None
    """A version or bounds: `3.12`, `>=3.11,<3.14`."""
    env: dict[str, Text] = {}
    secrets: dict[str, str] = {}
    """Variable to reference: `env:NAME` or `file:/path`, read when the job is submitted, or
    `secret:NAME/KEY`, read by the engine."""
    mounts: tuple[Text, ...] = ()
    """SRC:/path[:ro|:rw] or claim:NAME:/path[:ro|:rw], each with the whole path of its source."""
    workspace: Annotated[str, AfterValidator(check_workspace_name)] | None = None
    """The name of a folder that outlives the job."""
    results: tuple[Text, ...] = ()
    index: IndexSettings = IndexSettings()
    nix: NixSettings | None = None
    """Where `system` comes from; None without system packages."""
    uv: dict[str, UvSetting] | None = None
    """uv's settings, which `stoke.request.surroundings` records at submission; None before that."""
    image: str | None = None
    timeout: Seconds | None = None
    cpu: Cores | None = None
    memory: Memory | None = None
    hold: Seconds | None = None
    """How long a job whose code has failed stays, so that `stoke exec` can look inside."""
    shm_size: Memory | None = None
    """Bytes of /dev/shm, through which worker processes exchange data."""
    cpu_request: Cores | None = None
    """What a cluster reserves; None reserves the limit."""
    memory_request: Memory | None = None
    gpu: Gpus | None = None
    retries: Retries = 0
    """How often the job is run again at most (`stoke.backend.api.Cause`)."""
    retry_exit: tuple[ExitCode, ...] = ()
    """Exit codes with which it is run again too."""
    notify: bool = False
    """Whether the job tells of its end (`stoke.jobs.notify`)."""
    profile: Annotated[str, BeforeValidator(_read_profile), Field(max_length=40)] | None = None
    """The name of a table in the configuration's `argo.profiles`."""
    labels: Labels = {}
    annotations: Annotations = {}
    use_cache: bool = True
    scope: Scope = "default"

    @field_validator("code")
    @classmethod
    def _code(cls, code: str) -> str:
        if len(code.encode()) > MAX_CODE:
            raise ValueError(f"is longer than {MAX_CODE // 1024**2} MiB")
        check_is_code(code)
        check_encodable(code)
        return code

    @field_validator("module")
    @classmethod
    def _module(cls, name: str | None) -> str | None:
        if name is not None and not _MODULE.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} is not the name of a module; write package.module, or run a file: "
                "stoke run FILE"
            )
        return name

    @field_validator("exec")
    @classmethod
    def _exec(cls, name: str | None) -> str | None:
        if name is not None and not _PROGRAM.fullmatch(name):
            raise ValueError(
                f"{name[:80]!r} is not the name of a program; write one that a package installs, such "
                "as pytest, or run a file: stoke run FILE"
            )
        return name

    @field_validator("dependencies")
    @classmethod
    def _dependencies(cls, dependencies: tuple[str, ...]) -> tuple[str, ...]:
        for number, text in enumerate(dependencies):
            check_requirement(text, f"dependencies[{number}]")
        return dependencies

    @field_validator("system")
    @classmethod
    def _system(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > 500:
            raise ValueError(f"names {len(names)} system packages; 500 is the most")
        for name in names:
            if len(name) > 200 or not _SYSTEM.fullmatch(name):
                raise ValueError(
                    f"{name[:60]!r} is not the name of a Nix package; write one such as gcc or "
                    "python3Packages.numpy"
                )
        return names

    @field_validator("python")
    @classmethod
    def _python(cls, wanted: str | None) -> str | None:
        if wanted is not None and not all(_PYTHON.fullmatch(part) for part in wanted.split(",")):
            raise ValueError(f"{wanted!r} is not a Python version; write 3.12 or >=3.11,<3.14")
        return wanted

    @field_validator("env", "secrets")
    @classmethod
    def _variables(cls, variables: dict[str, str]) -> dict[str, str]:
        for name, value in variables.items():
            if not _VARIABLE.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not the name of a variable; use letters, digits and _, with no digit "
                    "first"
                )
            if value == HIDDEN:
                raise ValueError(
                    f"{name} was hidden when this was printed; give its value again, best as a secret: "
                    f"--secret {name}=env:{name}"
                )
        return variables

    @field_validator("secrets")
    @classmethod
    def _references(cls, secrets: dict[str, str]) -> dict[str, str]:
        for reference in secrets.values():
            if not _ENGINES_SECRET.fullmatch(reference):
                _check_reference(reference, References.form)
        return secrets

    @field_validator("mounts")
    @classmethod
    def _mounts(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        from stoke.request.mounts import check_mounts

        check_mounts(mounts)
        return mounts

    @field_validator("results")
    @classmethod
    def _results(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        from stoke.request.result_patterns import check_patterns

        return check_patterns(patterns)

    @field_validator("uv")
    @classmethod
    def _uv(cls, settings: dict[str, UvSetting] | None) -> dict[str, UvSetting] | None:
        for name, setting in (settings or {}).items():
            try:
                check_setting(name, setting.value)
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        return settings

    @field_validator("image")
    @classmethod
    def _image(cls, image: str | None) -> str | None:
        if image is not None and not _IMAGE.fullmatch(image):
            raise ValueError(
                f"{image!r} is not the name of an image; write it as python:3.13-slim or "
                "registry.example.org/team/image@sha256:..."
            )
        return image

    @model_validator(mode="after")
    def _start(self) -> JobSpec:
        has_code = bool(self.code.strip("\ufeff \t\r\n"))
        starts = [name for name in ("module", "exec") if getattr(self, name) is not None]
        starts += ["shell"] if self.shell else []
        if has_code and starts:
            raise ValueError(f"{starts[0]}: is named beside code; a request runs one of them")
        if len(starts) > 1:
            raise ValueError(
                f"{starts[1]}: is named beside {starts[0]}; a request runs one of them"
            )
        if not has_code and not starts:
            raise ValueError("code: is empty; there is nothing to run")
        return self

    @model_validator(mode="after")
    def _again(self) -> JobSpec:
        if self.retry_exit and not self.retries:
            raise ValueError("retry_exit: does nothing without retries; add --retries 3")
        if self.retries and self.shell:
            raise ValueError("retries: a shell is not run again; leave it out")
        return self

    @model_validator(mode="after")
    def _reserved(self) -> JobSpec:
        if self.cpu is not None and self.cpu_request is not None and self.cpu_request > self.cpu:
            raise ValueError(f"cpu_request: is more than the limit, cpu {exact_number(self.cpu)}")
        most, reserved = self.memory, self.memory_request
        if most is not None and reserved is not None and reserved > most:
            raise ValueError(f"memory_request: is more than the limit, memory {human_bytes(most)}")
        return self

    @model_validator(mode="after")
    def _workspace(self) -> JobSpec:
        if not self.workspace or not self.mounts:
            return self
        from stoke.request.mounts import parse_mount

        for text in self.mounts:
            if (parse_mount(text).target + "/").startswith(f"{WORKSPACE}/"):
                raise ValueError(f"mounts: {text!r} would hide the workspace at {WORKSPACE}")
        return self

    @model_validator(mode="after")
    def _requirements(self) -> JobSpec:
        parsed = self.parsed_requirements()
        if parsed.require_hashes and (self.dependencies or not parsed.is_lock()):
            raise ValueError(
                "requirements: --require-hashes needs every requirement pinned with == and hashed"
            )
        self.parsed_constraints()
        if self.locked:
            self._check_lock(parsed)
        for name in self.secrets:
            if name in self.env:
                raise ValueError(f"{name} is given both in env and in secrets")
        return self

    def _check_lock(self, parsed: ParsedRequirements) -> None:
        if self.dependencies:
            raise ValueError(
                "dependencies: a lockfile is complete, and more packages are named beside it or by the "
                "code's own metadata; remove one of them"
            )
        if self.constraints.strip():
            raise ValueError("constraints: a lockfile is complete and takes no constraints")
        if not parsed.requirements:
            raise ValueError("requirements: must be a complete lockfile, and names no package")
        if entry := parsed.first_unlocked():
            raise ValueError(
                f"requirements: not a complete lockfile: line {entry.line}, {entry.text[:200]!r}, is "
                "not both pinned with == and hashed with --hash"
            )

    def parsed_requirements(self) -> ParsedRequirements:
        return _parsed(self.requirements)

    def parsed_constraints(self) -> list[Entry]:
        return _parsed_constraints(self.constraints)

    @property
    def has_packages(self) -> bool:
        return bool(self.dependencies or self.parsed_requirements().requirements)


def make_spec(fields: dict[str, Any]) -> JobSpec:
    """Return a checked JobSpec, or raise a `RequestError` that names the field and the problem."""
    try:
        return JobSpec.model_validate(fields)
    except ValidationError as error:
        field, why = explain(error)
        raise RequestError(field, why) from None


# pydantic's names of the rules for numbers and types, and what to say for each.
_BOUNDS = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
_TYPES = {
    **dict.fromkeys(("string_type", "string_sub_type"), "must be text"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number such as 2 or 0.5"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must be a table"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    "finite_number": "must be a finite number",
}


def explain(error: ValidationError) -> tuple[str, str]:
    """Return the first problem as (field, what is wrong), for people."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, RequirementError):
        return cause.field, f"{cause.text!r} {cause.why}"
    field = ".".join(str(part) for part in first["loc"] if part != "__root__")
    if isinstance(cause, ValueError):
        text = str(cause)
        if not field and ": " in text:
            field, text = text.split(": ", 1)
        return field or "request", text
    if first["type"] == "extra_forbidden":
        return field, "is not a field of a request"
    if first["type"] == "missing":
        return field, "is missing"
    context = first.get("ctx", {})
    for name, words in _BOUNDS.items():
        if name in context:
            return field, f"must be {words} {exact_number(context[name])}"
    why = _TYPES.get(first["type"], first["msg"][0].lower() + first["msg"][1:])
    return field or "request", why
