"""The commands of `stoke`. Listing and completing them imports none of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from stoke.errors import EXIT_INTERRUPT
from stoke.files import debug
from stoke.text.shorten import shorten

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "run": ("stoke.cli.commands.run", "Run Python code with its packages, and wait for it."),
    "submit": ("stoke.cli.commands.submit", "Run a request from a JSON file."),
    "shell": ("stoke.cli.commands.shell", "Open a shell inside a job's environment."),
    "exec": ("stoke.cli.commands.exec", "Run a program inside a running job, by default a shell."),
    "jobs": ("stoke.cli.commands.jobs", "List jobs."),
    "show": ("stoke.cli.commands.show", "Show a job in detail."),
    "logs": ("stoke.cli.commands.logs", "Print the output of jobs."),
    "results": (
        "stoke.cli.commands.results",
        "List, copy, compare and clear what jobs left behind.",
    ),
    "stop": ("stoke.cli.commands.stop", "Stop jobs."),
    "rm": ("stoke.cli.commands.rm", "Remove finished jobs, their logs and their results."),
    "rerun": ("stoke.cli.commands.rerun", "Run a job's request again."),
    "race": (
        "stoke.cli.commands.race",
        "Run a request cold and warm, and print what the cache saved.",
    ),
    "compare": ("stoke.cli.commands.compare", "Show two jobs side by side."),
    "render": (
        "stoke.cli.commands.render",
        "Print what would be submitted, without submitting it.",
    ),
    "schema": ("stoke.cli.commands.schema", "Print the JSON schema of a request."),
    "cache": ("stoke.cli.commands.cache", "List, prune, warm and clear the cache volumes."),
    "queue": ("stoke.cli.commands.queue", "List, pause and reorder the jobs that wait to start."),
    "schedule": (
        "stoke.cli.commands.schedule",
        "Run requests regularly, at the times of cron expressions.",
    ),
    "workspace": (
        "stoke.cli.commands.workspace",
        "List, copy, clone, rename and remove workspaces: named folders that outlive jobs.",
    ),
    "mcp": ("stoke.cli.commands.mcp", "Serve tools for coding agents, over standard input."),
    "api": ("stoke.cli.commands.api", "Serve jobs over HTTP, for programs."),
    "serve": ("stoke.cli.commands.serve", "Serve the screens to a browser."),
    "setup": (
        "stoke.cli.commands.setup",
        "Prepare an engine for jobs; schedule the pruning of caches; teach a coding agent.",
    ),
    "doctor": ("stoke.cli.commands.doctor", "Check the setup and suggest fixes."),
    "completion": ("stoke.cli.completion", "Print the completion script for a shell."),
}
"""Name to module, whose `command` it is, and one line of help."""


class _OutputClosedError(Exception):
    """The reader of our output has closed it. No OSError, which click would end with exit code 1."""


class Commands(click.Group):
    """A group whose commands are in the table above."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found = import_module(COMMANDS[cmd_name][0]).command
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _OutputClosedError from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return click.Command.shell_complete(self, ctx, incomplete)
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(name, help=text)
            for name, (_, text) in COMMANDS.items()
            if name.startswith(incomplete)
        ]


def _debug(_ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not debug.is_requested():
        from stoke.cli.debug_log import start_debug_log

        start_debug_log()


def _version(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        click.echo(f"stoke {version('stoke-tui')}")
        ctx.exit()


@click.group(
    cls=Commands,
    subcommand_metavar="[COMMAND] [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Print the version.",
)  # fmt: skip
@click.option(
    "--debug", is_flag=True, is_eager=True, expose_value=False, callback=_debug,
    help="Write a log of timings, requests and decisions to debug.log in the state folder.",
)  # fmt: skip
def cli() -> None:
    """Run Python on this machine, in a container or on a cluster, with caches that make the second
    run start in milliseconds. Without a command, stoke opens its screens.

    \b
    stoke run -w numpy -c 'import numpy; print(numpy.pi)'
    stoke jobs
    """


def run() -> int:
    """Run the command line and return the exit code.

    Usage errors are printed here; all other errors are raised.
    """
    try:
        code = cli.main(prog_name="stoke", standalone_mode=False)
    except click.ClickException as error:
        error.message = shorten(error.message)  # type: ignore[misc]
        error.show()
        return error.exit_code
    except click.Abort:
        return EXIT_INTERRUPT
    except _OutputClosedError:
        raise BrokenPipeError from None
    return code if isinstance(code, int) else 0
