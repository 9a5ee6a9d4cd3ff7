"""The options that make a request, declared once for every command that takes them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from stoke.cli.completion import complete_backend, complete_job
from stoke.errors import RequestError
from stoke.logs.sanitise import clean

if TYPE_CHECKING:
    from stoke.config import Config
    from stoke.lifecycle import Request

Function = TypeVar("Function", bound=Callable[..., Any])
Option = Callable[[Function], Function]


def apply(*groups: tuple[Option[Any], ...]) -> Option[Any]:
    """The options of several groups as one decorator, in the order in which help shows them."""

    def decorate(function: Function) -> Function:
        for group in reversed(groups):
            for option in reversed(group):
                function = option(function)
        return function

    return decorate


CODE: tuple[Option[Any], ...] = (
    click.argument("words", metavar="[FILE|-] [-- ARG...]", nargs=-1, type=click.UNPROCESSED),
    click.option("-c", "code", metavar="CODE", help="Run this code instead of a file."),
    click.option(
        "-w", "--with", "packages", multiple=True, metavar="REQ",
        help="A Python package, or a list of them: 'pandas>=2,<3'. Again for more.",
    ),
    click.option(
        "-r", "--requirements", metavar="FILE", help="Packages from a requirements file."
    ),
    click.option(
        "--lock", metavar="FILE",
        help="Packages from a requirements file that pins and hashes all of them.",
    ),
    click.option(
        "-s", "--system", multiple=True, metavar="PKG",
        help="A system package by its name in nixpkgs, or a list. Again for more.",
    ),
    click.option("--python", metavar="VERSION", help="The Python to run on: 3.12 or '>=3.11,<3.14'."),
    click.option("--env", multiple=True, metavar="NAME=VALUE", help="A variable for the code."),
    click.option(
        "--secret", multiple=True, metavar="NAME=REF",
        help="A variable that is read here, on submitting: env:NAME or file:/path; or a secret of "
        "the cluster: secret:NAME/KEY (argo).",
    ),
    click.option("--index", metavar="URL", help="The package index."),
    click.option("--extra-index", multiple=True, metavar="URL", help="One more package index."),
    click.option(
        "--index-credentials", metavar="REF",
        help="Where user:password for the index stands: env:NAME or file:/path.",
    ),
    click.option("--cpu", type=float, metavar="N", help="At most so many processors."),
    click.option("--memory", metavar="SIZE", help="At most so much memory: 512m, 2g."),
    click.option(
        "--shm-size", metavar="SIZE",
        help="Size of /dev/shm: 2g. Without it, as much as --memory, or 8 GiB.",
    ),
    click.option("--timeout", metavar="TIME", help="End the job after 90s, 5m or 1h30m."),
)  # fmt: skip


def _into_variable(ctx: click.Context, option: click.Parameter, value: str | None) -> None:  # noqa: ARG001
    """An option that is a setting for this once: the variable of that setting, for whoever reads the
    configuration from here on, also in another process."""
    if value is not None:
        os.environ[f"STOKE_ARGO__{str(option.name).upper()}"] = value


CLUSTER: tuple[Option[Any], ...] = (
    click.option(
        "--context", metavar="CONTEXT", expose_value=False, callback=_into_variable,
        help="The cluster, by its context in the kubeconfig (argo).",
    ),
    click.option(
        "--namespace", metavar="NAMESPACE", expose_value=False, callback=_into_variable,
        help="The namespace there (argo).",
    ),
)  # fmt: skip

BACKEND: tuple[Option[Any], ...] = (
    click.option(
        "-b", "--backend", metavar="BACKEND", shell_complete=complete_backend,
        help="Where to run: local, docker, argo, or another that is installed.",
    ),
    *CLUSTER,
)  # fmt: skip

PLACE: tuple[Option[Any], ...] = (
    click.option("--image", metavar="IMAGE", help="The image to run in."),
    click.option("--scope", metavar="SCOPE", help="Whose caches to use and to share."),
    click.option("--no-cache", is_flag=True, help="Build everything anew, and keep nothing."),
    click.option("--upgrade", is_flag=True, help="Resolve the packages again, to their newest."),
    click.option("--name", metavar="NAME", help="What to call the job."),
)

OUTCOME: tuple[Option[Any], ...] = (
    click.option("--detach", is_flag=True, help="Print the job's id and leave it running."),
    click.option(
        "--json", "as_json", is_flag=True,
        help="Print the job as JSON at its end; its output goes to stderr.",
    ),
    click.option("-q", "--quiet", is_flag=True, help="Leave stderr to the job's own output."),
)  # fmt: skip

JOB: tuple[Option[Any], ...] = (click.argument("job", metavar="JOB", shell_complete=complete_job),)
JOBS: tuple[Option[Any], ...] = (
    click.argument("jobs", metavar="JOB...", nargs=-1, required=True, shell_complete=complete_job),
)
JOBS_IF_ANY: tuple[Option[Any], ...] = (
    click.argument("jobs", metavar="[JOB]...", nargs=-1, shell_complete=complete_job),
)


def request_from(
    config: Config,
    *,
    words: tuple[str, ...],
    code: str | None,
    packages: tuple[str, ...],
    requirements: str | None,
    lock: str | None,
    system: tuple[str, ...],
    python: str | None,
    env: tuple[str, ...],
    secret: tuple[str, ...],
    index: str | None,
    extra_index: tuple[str, ...],
    index_credentials: str | None,
    cpu: float | None,
    memory: str | None,
    shm_size: str | None,
    timeout: str | None,
    image: str | None,
    scope: str | None,
    no_cache: bool,
    upgrade: bool,
    name: str | None,
) -> Request:
    """The request that the options of CODE and PLACE make. `RequestError` when they make none."""
    from stoke.defaults import with_defaults
    from stoke.lifecycle import Request
    from stoke.request import request_from_options, split_dependencies

    text, program, arguments = _code(words, code)
    spec = request_from_options(
        code=text,
        args=list(arguments),
        dependencies=[one for some in packages for one in split_dependencies(some)],
        requirements=_requirements(requirements, lock, packages),
        system=[one for some in system for one in some.replace(",", " ").split()],
        python=python,
        env=_variables("env", env),
        secrets=_variables("secrets", secret),
        index={"url": index, "extra": list(extra_index), "credentials": index_credentials},
        cpu=cpu,
        memory=memory,
        shm_size=shm_size,
        timeout=timeout,
        image=image,
        scope=scope,
        use_cache=False if no_cache else None,
    )
    if lock is not None and spec.dependencies:
        raise RequestError(
            "dependencies", "a lock is complete, and the code's own metadata names packages too",
            "leave one of them out",
        )  # fmt: skip
    stem = Path(program).stem if program not in ("-", "-c") else ""
    return Request(
        with_defaults(spec, config),
        name=job_name(name, stem),
        program=program,
        upgrade=upgrade,
        lock_ttl=config.lock_ttl,
        on_cache_trouble=config.on_cache_trouble,
    )


def job_name(*wanted: str | None) -> str:
    """The first name that is one, without what a history or a terminal could not take."""
    for name in wanted:
        if name and (cleaned := clean(name).strip()):
            return cleaned[:200]
    return "job"


def read_input(where: str) -> bytes:
    """A file's bytes, or standard input's for `-`."""
    if where == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(where).read_bytes()
    except OSError as error:
        raise RequestError(where, f"cannot be read: {error.strerror}") from None


def _code(words: tuple[str, ...], code: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(the code, what it sees as its program's name, its arguments)."""
    from stoke.request import decode_code, read_code

    if code is not None:
        return code, "-c", words
    if not words:
        raise click.UsageError("Nothing to run: name a file, '-' for standard input, or -c CODE.")
    where, *arguments = words
    if where == "-":
        return decode_code(read_input("-"), "standard input"), "-", tuple(arguments)
    return read_code(Path(where)), Path(where).name, tuple(arguments)


def _requirements(plain: str | None, lock: str | None, packages: tuple[str, ...]) -> str | None:
    if lock is None:
        return None if plain is None else _text(plain)
    if plain is not None or packages:
        raise click.UsageError("--lock holds every package; --with and -r cannot add to it.")
    from stoke.requirements import RequirementError, parse_requirements

    text = _text(lock)
    try:
        whole = parse_requirements(text).is_lock()
    except RequirementError as error:
        raise RequestError(error.field, f"{error.text!r} {error.why}") from None
    if not whole:
        raise RequestError(
            "requirements",
            f"{lock} is not a lock: every requirement must be pinned with == and have a --hash",
            f"make one: uv pip compile --generate-hashes {lock} -o requirements.lock",
        )
    return text


def _text(where: str) -> str:
    data = read_input(where)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise RequestError("requirements", f"{where} is not UTF-8 (byte {error.start})") from None


def _variables(field: str, given: tuple[str, ...]) -> dict[str, str]:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            form = "NAME=VALUE" if field == "env" else "NAME=env:OTHER or NAME=file:/path"
            # The text itself is not repeated: it may be a secret with the name left out.
            raise RequestError(field, f"one of the values has no '='; write {form}")
        variables[name] = value
    return variables
