"""The options that commands share. Those of a request come from `stoke.request.fields`."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import click

from stoke.cli.completion import complete_backend, complete_job
from stoke.cli.option_errors import FILLED, FilledNumber, OptionalValue, RequestCommand, with_value
from stoke.files.paths import current_folder
from stoke.history.queue import MOST_PRIORITY
from stoke.request import fields, values
from stoke.request.fields import put_value
from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from stoke.config.model import Config
    from stoke.history.queue import Placement
    from stoke.jobs.request import Request
    from stoke.jobs.sweeps import SweepRequest
    from stoke.project.choices import ProjectEnvironment

Function = TypeVar("Function", bound=Callable[..., Any])
Option = Callable[[Function], Function]


def apply(*groups: tuple[Option[Any], ...]) -> Option[Any]:
    """Return one decorator for the options of several groups, in the order of the help text."""

    def decorate(function: Function) -> Function:
        for group in reversed(groups):
            for option in reversed(group):
                function = option(function)
        return function

    return decorate


class CodeCommand(RequestCommand):
    """A command that takes code. As with `python`, the words behind FILE are the script's.

    So do all words behind -m MODULE and --exec PROGRAM. An option of stoke there is refused, because it
    may be meant for either: a `--` in front of it makes it the script's. With -c, the script's words
    begin with the first word that is no option.
    """

    words_before: ClassVar[int] = 0
    """Number of the command's own arguments in front of FILE."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._divided(args))

    def _divided(self, args: list[str]) -> list[str]:
        """Return the words with a `--` in front of FILE, or behind the option in its place."""
        options = {
            name: option
            for option in self.params
            if isinstance(option, click.Option)
            for name in (*option.opts, *option.secondary_opts)
        }
        at, before, has_code = 0, 0, False
        args = list(args)
        while at < len(args) and args[at] != "--":
            word = args[at] = with_value(args, at, self.params)
            if word.startswith("-") and word != "-":
                if word.startswith("--") and word.partition("=")[0] not in options:
                    return args  # Unknown, or --help: whether a value follows is not known either.
                option, takes_next = _valued(word, options)
                first, at = at, at + 1 + takes_next
                has_code = has_code or (option is not None and option.name == "code")
                if option is not None and option.name in ("module", "exec"):
                    return _ended(args, first, at, options)
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


def _valued(word: str, options: dict[str, click.Option]) -> tuple[click.Option | None, bool]:
    """Return the option in a word that takes a value, and whether the next word is that value."""
    if word.startswith("--"):
        name, equals, _ = word.partition("=")
        option = options.get(name)
        return (None, False) if option is None or option.is_flag else (option, not equals)
    for at, letter in enumerate(word[1:], 2):
        option = options.get(f"-{letter}")
        if option is None or not option.is_flag:
            return option, option is not None and at == len(word)
    return None, False


def _ended(args: list[str], first: int, end: int, options: dict[str, click.Option]) -> list[str]:
    """Return the words with a `--` behind the option from `first` to `end` that says what to run."""
    script = args[end:]
    if script[:1] != ["--"]:
        start = args[first:end]
        _refuse_ours(script, " ".join(start), shlex.join([*start, "--", *script]), options)
        script = ["--", *script]
    return [*args[:end], *script]


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
    """Refuse a second value of an option (`multiple=True`), because dropping one of the two would
    change the request."""
    if len(values) > 1:
        raise click.UsageError(f"{option.opts[0]} can be given once only.")
    return values[0] if values else None


def option_for(name: str) -> Option[Any]:
    """Return the option that sets a field of a request."""
    return _click_option(next(field for field in fields.FIELDS if field.name == name))


def _click_option(field: fields.Field) -> Option[Any]:
    option = field.option
    assert option is not None
    help_text = option.help or field.help
    settings: dict[str, Any] = {"is_flag": True}
    if option.metavar:
        settings = {"metavar": option.metavar, "type": FILLED}
    if option.alone:
        settings |= {"cls": OptionalValue, "alone": option.alone}
    if option.once:
        settings |= {"multiple": True, "callback": once}
    elif field.value.repeated:
        settings |= {"multiple": True}
        help_text += " Repeatable."
    return click.option(*option.flags, option.name, help=help_text, **settings)


ENDING: tuple[Option[Any], ...] = tuple(
    option_for(name) for name in ("retries", "retry_exit", "notify")
)
"""What comes after the end of a job."""


def ending_changes(
    retries: str | None, retry_exit: tuple[str, ...], notify: bool
) -> dict[str, Any]:
    """Return the fields that the options of ENDING set; None for those that are not given."""
    codes = values.Numbers().from_options("retry_exit", retry_exit) if retry_exit else None
    return {"retries": retries, "retry_exit": codes, "notify": notify or None}


_STARTS = ("code", "module", "exec")


def request_options(changes_json: bool, starts: bool = True) -> tuple[Option[Any], ...]:
    """Return the options of all fields, those apart that `stoke submit` has too.

    Without `starts`, leave out those that say what to run.
    """
    return tuple(
        _click_option(field)
        for field in fields.FIELDS
        if field.option and field.option.changes_json == changes_json
        if starts or field.name not in _STARTS
    )


_DEPENDENCIES: tuple[Option[Any], ...] = (
    click.option(
        "--group", "groups", multiple=True, type=FILLED, metavar="NAME",
        help="Dependency group of the project to install too. Repeatable.",
    ),
    click.option(
        "--extra", "extras", multiple=True, type=FILLED, metavar="NAME",
        help="Extra of the project to install too. Repeatable.",
    ),
    click.option("--no-dev", is_flag=True, help="Leave out the project's dependency group dev."),
)  # fmt: skip
"""Which of its project's dependencies a request gets; they become its packages."""

CODE: tuple[Option[Any], ...] = (
    click.argument(
        "words", metavar="[FILE|FOLDER|-] [[--] ARG...]", nargs=-1, type=click.UNPROCESSED
    ),
    *request_options(changes_json=False),
    *_DEPENDENCIES,
)
REQUEST: tuple[Option[Any], ...] = (
    *request_options(changes_json=False, starts=False),
    *_DEPENDENCIES,
)
"""Those of CODE that do not say what to run."""


PROJECT: tuple[Option[Any], ...] = (
    click.option(
        "--folder", multiple=True, callback=once, type=FILLED, metavar="DIR",
        help="Folder that travels with the code: by default the nearest one above the script, or the "
        "current one, with pyproject.toml, .git or stoke.toml.",
    ),
    click.option("--no-folder", is_flag=True, help="Send the code only, and none of its files."),
    click.option(
        "--include", multiple=True, type=FILLED, metavar="GLOB",
        help="Files of the folder that travel although a rule leaves them out. Repeatable.",
    ),
    click.option(
        "--exclude", multiple=True, type=FILLED, metavar="GLOB",
        help="Files of the folder that do not travel. Repeatable.",
    ),
)  # fmt: skip
"""Which files travel. What they lead to is the field `project` of the request."""


def _into_variable(ctx: click.Context, option: click.Parameter, value: str | None) -> None:  # noqa: ARG001
    """Set the variable of the setting, so that the configuration of this process has the option's
    value, and that of its child processes."""
    if value is not None:
        os.environ[f"STOKE_ARGO__{str(option.name).upper()}"] = value


CLUSTER: tuple[Option[Any], ...] = (
    click.option(
        "--context", metavar="CONTEXT", type=FILLED, expose_value=False,
        callback=_into_variable,
        help="Context of the kubeconfig that names the cluster (argo).",
    ),
    click.option(
        "-n", "--namespace", metavar="NAMESPACE", type=FILLED, expose_value=False,
        callback=_into_variable,
        help="Namespace in that cluster (argo).",
    ),
)  # fmt: skip

BACKEND: tuple[Option[Any], ...] = (
    click.option(
        "-b", "--backend", metavar="BACKEND", type=FILLED, shell_complete=complete_backend,
        help="Where to run: local, docker, argo, or another installed backend.",
    ),
    *CLUSTER,
)  # fmt: skip

UPGRADE: Option[Any] = click.option(
    "--upgrade", is_flag=True, help="Resolve the packages to their newest versions."
)
PLACE: tuple[Option[Any], ...] = (
    *request_options(changes_json=True),
    UPGRADE,
    click.option("--name", metavar="NAME", type=FILLED, help="Name of the job."),
)

QUIET: Option[Any] = click.option(
    "-q", "--quiet", is_flag=True, help="Print nothing of stoke's own to stderr."
)
OUTCOME: tuple[Option[Any], ...] = (
    click.option("-d", "--detach", is_flag=True, help="Print the job's id and exit while it runs."),
    click.option(
        "--json", "as_json", is_flag=True,
        help="Print the job as JSON when it has ended; its output goes to stderr.",
    ),
    QUIET,
)  # fmt: skip

QUEUE: tuple[Option[Any], ...] = (
    click.option(
        "--after", metavar="JOB", type=FILLED, multiple=True, shell_complete=complete_job,
        help="Start when this job has succeeded; may be repeated.",
    ),
    click.option(
        "--after-any", metavar="JOB", type=FILLED, multiple=True, shell_complete=complete_job,
        help="Start when this job has ended, however it ended.",
    ),
    click.option(
        "--priority", type=FilledNumber(-MOST_PRIORITY, MOST_PRIORITY), metavar="N",
        help="Put the job into the queue, before jobs of a lower priority (default: 0).",
    ),
)  # fmt: skip

_MOST_PARALLEL = 100_000
SWEEP: tuple[Option[Any], ...] = (
    click.option(
        "--each", metavar="NAME=VALUES", type=FILLED, multiple=True,
        help="Run a task for each value: lr=0.1,0.01 or seed=1..10. Repeated, for each combination. "
        "The code gets --NAME VALUE, or the value in place of {NAME} in its arguments.",
    ),
    click.option(
        "--zip", "in_pairs", is_flag=True,
        help="Pair the first values of each --each, then the second ones, and so on.",
    ),
    click.option(
        "--each-line", metavar="FILE", type=FILLED,
        help="Run a task for each line of a file, or of standard input (-): the line becomes the last "
        "argument, or replaces {line}.",
    ),
    click.option(
        "--each-file", metavar="FILE", type=FILLED,
        help="Run a task for each row of a .csv file with a header, or each line of a .jsonl file.",
    ),
    click.option(
        "--max-parallel", metavar="N", type=FilledNumber(1, _MOST_PARALLEL),
        help="Run at most N tasks of the sweep at once (default: as many as there are slots, or as the "
        "cluster has room for).",
    ),
    click.option(
        "--max-fails", metavar="N", type=FilledNumber(0, _MOST_PARALLEL),
        help="End the sweep once more than N of its tasks have failed. Not on a cluster.",
    ),
    click.option(
        "--fail-fast", is_flag=True, help="End the sweep when a task fails, as --max-fails 0 does."
    ),
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
    words: tuple[str, ...] = (),
    code: str | None = None,
    opens_shell: bool = False,
    upgrade: bool = False,
    name: str | None = None,
    **options: Any,
) -> Request:
    """Return the request that the options of CODE and PLACE make; options that are left out count as
    not given. `RequestError` names the field that is wrong."""
    from stoke.config.defaults import with_defaults
    from stoke.jobs.request import Request
    from stoke.request.sources import request_from_options

    start = _SHELL if opens_shell else _start(words, code, options)
    given = _read_files(options, start.file) | start.fields
    project = _project(options, start)
    for field in fields.FIELDS:
        if field.option and not isinstance(field.value, values.FileText):
            value = options.get(field.option.name)
            # Not `in (None, (), False)`: 0 is equal to False, and --cpu 0 is an error.
            if value is None or value is False or value == () or field.name in given:
                continue
            texts = value if isinstance(value, tuple) else (value,)
            put_value(given, field.name, field.value.from_options(field.name, texts))
    given, environment = _with_project(given, project, start, options)
    return Request.configured(
        with_defaults(request_from_options(**given), config, environment.settings),
        config,
        notes=environment.notes,
        name=job_name(name, start.name),
        program=start.program,
        upgrade=upgrade,
        project_files=environment.extra_files,
        needs_project=not _is_code_only(start)
        or bool(options.get("folder") or options.get("include")),
    )


def placement(
    detach: bool, after: tuple[str, ...], after_any: tuple[str, ...], priority: int | None
) -> Placement | None:
    """Return the place in the queue that the options of QUEUE name; None for a job that starts at once,
    because the user waits for it and did not ask for the queue."""
    if not (detach or after or after_any or priority is not None):
        return None
    from stoke.cli.job_lookup import find_job, open_history
    from stoke.history.queue import Dependency, Placement

    found: dict[str, Dependency] = {}
    if after or after_any:
        with open_history() as history:
            for names, any_end in ((after_any, True), (after, False)):
                for name in names:
                    job_id = find_job(history, name).id
                    found[job_id] = Dependency(job_id, any_end)
    return Placement(priority or 0, tuple(found.values()))


def sweep_from(options: dict[str, Any]) -> SweepRequest | None:
    """Take the options of SWEEP out of a command's options; return the sweep, or None for none.

    Raises `RequestError` for values that make no sweep.
    """
    each: tuple[str, ...] = options.pop("each")
    in_pairs: bool = options.pop("in_pairs")
    each_line: str | None = options.pop("each_line")
    each_file: str | None = options.pop("each_file")
    max_parallel: int | None = options.pop("max_parallel")
    max_fails: int | None = options.pop("max_fails")
    fail_fast: bool = options.pop("fail_fast")
    if not (each or each_line or each_file):
        if in_pairs or fail_fast or max_parallel is not None or max_fails is not None:
            raise click.UsageError(
                "--zip, --max-parallel, --max-fails and --fail-fast need a sweep: --each NAME=VALUES."
            )
        return None
    if fail_fast and max_fails:
        raise click.UsageError("--fail-fast is --max-fails 0; give one of the two.")
    from stoke.jobs.sweeps import SweepRequest
    from stoke.request.sweep_files import read_lines, read_table
    from stoke.request.sweep_values import make_table, parse_each

    axes = [parse_each(one) for one in each]
    if each_file is not None:
        axes.append(read_table(each_file))
    if each_line is not None:
        axes.append(read_lines(each_line))
    table = make_table(axes, in_pairs=in_pairs)
    return SweepRequest(table, max_parallel, 0 if fail_fast else max_fails)


def _is_code_only(start: _Start) -> bool:
    """Return whether the request is code from -c or standard input, which may need no file."""
    return start.program == "-c" or start.file == "-"


def job_name(*wanted: str | None) -> str:
    """Return the first name that is not empty, without characters that a terminal would act on."""
    for name in wanted:
        if name and (cleaned := clean(name).strip()):
            return cleaned[:200]
    return "job"


class _Start(NamedTuple):
    """What a command line says to run."""

    fields: dict[str, Any]
    """The code, module or program, and the arguments."""
    program: str | None
    """sys.argv[0] of code."""
    name: str
    """For the job; empty where nothing names it."""
    file: str | None = None
    """FILE as it was given."""
    folder: str | None = None
    """FOLDER as it was given, if none of its files is run."""


_SHELL = _Start({"code": "", "shell": True}, None, "shell")


def _start(words: tuple[str, ...], code: str | None, options: Mapping[str, Any]) -> _Start:
    from stoke.request.sources import read_code

    named = {"code": code, "module": options.get("module"), "exec": options.get("exec")}
    named = {field: value for field, value in named.items() if value is not None}
    if len(named) > 1:
        raise click.UsageError("-c, -m and --exec each say what to run; give one of them.")
    if named:
        fields = {"code": "", **named, "args": list(words)}
        (what,) = named.values()
        return _Start(fields, "-c", "") if code is not None else _Start(fields, None, str(what))
    if not words:
        raise click.UsageError(
            "Nothing to run: name a file, '-' for standard input, -c CODE, -m MODULE or --exec PROGRAM."
        )
    where, *arguments = words
    if not where:
        raise click.UsageError("'' is empty; FILE names a file or a folder.")
    name = ""
    if where != "-" and os.path.isdir(where):
        from stoke.project.folder_program import find_program

        entry, name = find_program(where)
        if "file" not in entry:
            return _Start({"code": "", **entry, "args": arguments}, None, name, folder=where)
        where = entry["file"]
    found = {"code": read_code(where), "args": arguments}
    if where == "-":
        return _Start(found, "-", "", where)
    return _Start(found, Path(where).name, name or Path(where).stem, where)


def _project(options: Mapping[str, Any], start: _Start) -> dict[str, Any] | None:
    """Return the project that travels with the code, as JSON; None for none."""
    folder, include, exclude = (options.get(name) for name in ("folder", "include", "exclude"))
    if options.get("no_folder", True):
        if folder or include or exclude:
            raise click.UsageError("--no-folder sends no files; it takes no other option for them.")
        return None
    from stoke.project.root import project_of

    return project_of(
        None if start.file == "-" else start.file,
        start.fields["code"],
        start=start.folder,
        folder=folder,
        include=include or (),
        exclude=exclude or (),
    )


def _with_project(
    given: Mapping[str, Any],
    project: Mapping[str, Any] | None,
    start: _Start,
    options: Mapping[str, Any],
) -> tuple[dict[str, Any], ProjectEnvironment]:
    """Return the fields of the request with its project, and what the project adds to them."""
    from stoke.project.choices import NO_CHOICE, ProjectEnvironment, ProjectOptions

    chosen = NO_CHOICE
    if "groups" in options:
        chosen = ProjectOptions(
            tuple(options["groups"]), tuple(options["extras"]), not options["no_dev"]
        )
    if chosen.choose and (project is None or project["imports_only"]):
        raise click.UsageError("--group, --extra and --no-dev need a project: a pyproject.toml.")
    if project is not None:
        from stoke.project.request_additions import with_project

        folder = os.path.realpath(start.folder or ".")
        fields, environment = with_project(given, project, folder, chosen)
        if not project["imports_only"]:
            return fields, environment
    else:
        fields, environment = dict(given), ProjectEnvironment()
    if (
        "groups" not in options  # The command's request has no project.
        or start.file in (None, "-")
        or options.get("no_folder", True)
    ):
        return fields, environment
    from stoke.project.request_additions import beside

    # Many older applications have a requirements.txt and no marker of a project.
    found = beside(given, os.path.dirname(os.path.realpath(str(start.file))))
    return fields, environment._replace(notes=found.notes)


def script_folder(words: tuple[str, ...], code: str | None) -> Path:
    """Return the folder whose modules a script imports: its own, or the current one for -c and -."""
    if code is None and words and words[0] != "-":
        return (current_folder() / words[0]).parent
    return current_folder()


def _read_files(options: Mapping[str, Any], file: str | None) -> dict[str, Any]:
    """Return the fields that the files given by -r, --constraints and --lock make."""
    requirements: tuple[str, ...] = options.get("requirements") or ()
    constraints: tuple[str, ...] = options.get("constraints") or ()
    lockfile: str | None = options.get("lock")
    if lockfile is not None and (requirements or constraints or options.get("packages")):
        raise click.UsageError(
            "--lock holds every package; --with, -r and --constraints cannot add to it."
        )
    sources = requirements if lockfile is None else (lockfile,)
    if not sources and not constraints:
        return {}
    if [file, *sources, *constraints].count("-") > 1:
        raise click.UsageError("Standard input can be read once only; name a file in its place.")
    from stoke.request.requirements_files import check_lockfile, read_requirements

    texts = read_requirements(sources, constraints)
    if lockfile is not None:
        check_lockfile(lockfile, texts.requirements)
    found = {"requirements": texts.requirements, "constraints": texts.constraints or None}
    return found if lockfile is None else {**found, "locked": True}
