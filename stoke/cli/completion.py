"""`stoke completion`: print a shell's completion script for commands, options and job names."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, get_completion_class

from stoke.errors import StokeError
from stoke.text.sanitize import clean


def complete_job(
    _ctx: click.Context, _argument: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Return the ids of jobs that begin with the typed text, newest first."""
    from stoke.files.paths import history_file, is_there
    from stoke.history.database import History

    try:
        if not is_there(history_file()):
            return []
        with History() as history:
            jobs = history.list(limit=200)
    except StokeError:
        return []
    return [
        CompletionItem(clean(job.id), help=job.state) for job in jobs if job.id.startswith(typed)
    ]


def complete_backend(
    _ctx: click.Context, _option: click.Parameter, typed: str
) -> list[CompletionItem]:
    from stoke.backend.registry import backend_names

    return [CompletionItem(name) for name in backend_names() if name.startswith(typed)]


def complete_schedule(
    _ctx: click.Context, _argument: click.Parameter, typed: str
) -> list[CompletionItem]:
    from stoke.schedules.store import schedule_names

    try:
        return [CompletionItem(name) for name in schedule_names() if name.startswith(typed)]
    except (OSError, StokeError):
        return []


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script for a shell.

    \b
    stoke completion bash > ~/.local/share/bash-completion/completions/stoke
    stoke completion zsh > "${fpath[1]}/_stoke"
    stoke completion fish > ~/.config/fish/completions/stoke.fish
    """
    from stoke.cli.command_table import cli
    from stoke.cli.main import COMPLETING

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "stoke", COMPLETING).source())
