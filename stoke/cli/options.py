"""The options that make a request, declared once for every command that takes them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import click

from stoke.cli.completion import complete_backend, complete_job
from stoke.errors import RequestError
from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.jobs.request import Request

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


class CodeCommand(click.Command):
    """A command that takes code. As with `python`, the words behind FILE are the script's.

    An option of ours there is refused, because it may be meant for either: `--` in front makes it the
    script's. With -c, the script's words begin with the first that is no option.
    """

    words_before: ClassVar[int] = 0
    """Arguments of the command's own in front of FILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._divided(args))

    def _divided(self, args: list[str]) -> list[str]:
        """The words with a `--` in front of FILE."""
        options = {
            name: option
            for option in self.params
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        at, before, has_code = 0, 0, False
        while at < len(args) and args[at] != "--":
            word = args[at]
            if word.startswith("-") and word != "-":
                has_code = has_code or (word[:2] == "-c" and "-c" in options)
                at += 2 if _takes_next(word, options) else 1
            elif before < self.words_before:
                before += 1
                at += 1
            else:
                break
        if at >= len(args) or args[at] == "--":
            return args
        # Behind -c CODE there is no FILE: the word itself is the script's first.
        first = at if has_code else at + 1
        script = args[first:]
        if not has_code and script[:1] == ["--"]:
            script = script[1:]
        else:
            instead = ["--", *args[at:]] if has_code else [args[at], "--", *script]
            _refuse_ours(script, args[at], shlex.join(instead), options)
        return [*args[:at], "--", *args[at:first], *script]


def _takes_next(word: str, options: dict[str, click.Option]) -> bool:
    """Whether the next word is the value of an option in this one."""
    if word.startswith("--"):
        name, equals, _ = word.partition("=")
        return not equals and name in options and not options[name].is_flag
    for at, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None or not option.is_flag:
            return option is not None and at == len(word)
    return False


def _refuse_ours(
    script: list[str], behind: str, instead: str, options: dict[str, click.Option]
) -> None:
    for word in script:
        if word == "--":
            return
        name = word.partition("=")[0] if word.startswith("--") else word[:2]
        if name in options:
            raise click.UsageError(
                f"{name} after {clean(behind)} would go to the script, and stoke has an option of that "
                f"name too. For stoke, put it before {clean(behind)}; for the script, put -- before "
                f"the script's arguments: {clean(instead)}"
            )


def once(_ctx: click.Context, option: click.Parameter, values: tuple[str, ...]) -> str | None:
    """The callback of an option (`multiple=True`) that must not be given twice: dropping one of the
    two would change what is asked for."""
    if len(values) > 1:
        raise click.UsageError(f"{option.opts[0]} can be given once only.")
    return values[0] if values else None


REQUIREMENTS: Option[Any] = click.option(
    "-r", "--requirements", multiple=True, metavar="FILE|URL",
    help="Packages from a requirements file, with the files that it names. Again for more.",
)  # fmt: skip
LOCK: Option[Any] = click.option(
    "--lock", multiple=True, callback=once, metavar="FILE|URL",
    help="Packages from a requirements file that pins and hashes all of them, or from a pylock.toml: "
    "exactly these.",
)  # fmt: skip

CODE: tuple[Option[Any], ...] = (
    click.argument("words", metavar="[FILE|-] [[--] ARG...]", nargs=-1, type=click.UNPROCESSED),
    click.option(
        "-c", "code", multiple=True, callback=once, metavar="CODE",
        help="Run this code instead of a file.",
    ),
    click.option(
        "-w", "--with", "packages", multiple=True, metavar="REQ",
        help="A Python package, or a list of them: 'pandas>=2,<3'. Again for more.",
    ),
    REQUIREMENTS,
    LOCK,
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
    click.option(
        "--index", multiple=True, callback=once, metavar="URL", help="The package index."
    ),
    click.option("--extra-index", multiple=True, metavar="URL", help="One more package index."),
    click.option(
        "--index-credentials", multiple=True, callback=once, metavar="REF",
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
    requirements: tuple[str, ...],
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
    from stoke.config.defaults import with_defaults
    from stoke.jobs.request import Request
    from stoke.request.sources import request_from_options, split_dependencies

    text, program, arguments = _code(words, code)
    spec = request_from_options(
        code=text,
        args=list(arguments),
        dependencies=[one for some in packages for one in split_dependencies(some)],
        **_requirements(requirements, lock, packages, words if code is None else ()),
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


def _code(words: tuple[str, ...], code: str | None) -> tuple[str, str, tuple[str, ...]]:
    """(the code, what it sees as its program's name, its arguments)."""
    from stoke.request.sources import read_code

    if code is not None:
        return code, "-c", words
    if not words:
        raise click.UsageError("Nothing to run: name a file, '-' for standard input, or -c CODE.")
    where, *arguments = words
    return read_code(where), "-" if where == "-" else Path(where).name, tuple(arguments)


def _requirements(
    plain: tuple[str, ...], lock: str | None, packages: tuple[str, ...], words: tuple[str, ...]
) -> dict[str, Any]:
    """The fields that the files given by -r or --lock make."""
    if lock is not None and (plain or packages):
        raise click.UsageError("--lock holds every package; --with and -r cannot add to it.")
    sources = plain if lock is None else (lock,)
    if not sources:
        return {}
    if [*words[:1], *sources].count("-") > 1:
        raise click.UsageError("Standard input can be read once only; name a file in its place.")
    from stoke.request.requirements import parse_requirements
    from stoke.request.requirements_files import read_requirements, shown

    texts = read_requirements(sources)
    fields = {"requirements": texts.requirements, "constraints": texts.constraints or None}
    if lock is None:
        return fields
    parsed = parse_requirements(texts.requirements)
    if not parsed.is_lock():
        if parsed.first_unlocked() is None:
            raise RequestError("requirements", f"{shown(lock)} names no packages")
        file = "requirements.in" if lock == "-" else shlex.quote(shown(lock))
        entry = parsed.first_unlocked()
        where = f" (line {entry.line}: {entry.text[:200]!r})" if entry else ""
        raise RequestError(
            "requirements",
            f"{shown(lock)} is not a lock: every requirement must be pinned with == and have a "
            f"--hash{where}",
            f"make one: uv pip compile --generate-hashes {file} -o requirements.lock; or have it "
            f"resolved: -r {file}",
        )
    return {**fields, "locked": True}


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
