"""`stoke workspace`: list, copy, clone, rename and remove workspaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stoke.backend.capabilities import KeepsWorkspaces
from stoke.cli.confirm import confirm_by_name
from stoke.cli.options import BACKEND, apply
from stoke.cli.output import Cell, counted, print_json, print_notice, print_table, time_ago
from stoke.cli.progress import ProgressLine
from stoke.errors import EXIT_ENGINE, EngineError
from stoke.history.database import History
from stoke.text.times import rfc3339
from stoke.text.units import UNKNOWN, human_bytes

if TYPE_CHECKING:
    from stoke.backend.capabilities import Workspace
    from stoke.backend.pool import Backends
    from stoke.workspaces.keeper import Copied, WorkspaceKeeper

HEADS = ["WORKSPACE", "BACKEND", "SIZE", "FILES", "LAST USED", "IN USE BY"]
YES = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")


class _Group(click.Group):
    """Takes the names that the commands for jobs and caches have, too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, {"ls": "list", "rm": "remove"}.get(cmd_name, cmd_name))


@click.group(cls=_Group)
def command() -> None:
    """List, copy, clone, rename and remove workspaces: named folders that outlive jobs.

    A job gets one with --workspace NAME, which also makes it.

    \b
    stoke run -b docker --workspace ada train.py
    stoke workspace list
    stoke workspace cp ./data ada:/data
    stoke workspace remove ada
    """


@command.command("list")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@apply(BACKEND)
@click.option("--measure", is_flag=True, help="Measure now instead of showing the last figures.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
def list_workspaces(
    names: tuple[str, ...], backend: str | None, measure: bool, as_json: bool
) -> None:
    """List the workspaces of every backend that answers, or of the one named by --backend.

    With NAME, list only these. Sizes are from the last measurement. LAST USED is when a job or a copy
    from this machine used it last; for one that was only used from elsewhere, when it was made.

    \b
    stoke workspace list
    stoke workspace list ada -b docker --measure --json
    """
    from stoke.backend.registry import backend_names
    from stoke.workspaces.keeper import WorkspaceKeeper
    from stoke.workspaces.names import find_workspace

    found: list[Workspace] = []
    others: list[Workspace] = []
    with History() as history, closing(_backends()) as backends:
        for name in [backend] if backend else backend_names():
            try:
                chosen = backends.get(name)
                if not backend and not isinstance(chosen, KeepsWorkspaces):
                    continue
                keeper = WorkspaceKeeper(chosen, history)
                everything = keeper.all()
            except EngineError as error:
                if backend:
                    raise
                print_notice(f"{name} is not listed: {error.what}")
                continue
            there = [one for one in everything if not names or one.name in names]
            others += everything
            found += [_measured(keeper, one) for one in there] if measure else there
    for name in names:
        find_workspace(name, others, backend)
    if as_json:
        print_json([_document(one) for one in found])
        return
    if not found:
        print_notice("no workspaces yet; a job makes one: stoke run --workspace NAME FILE")
        return
    print_table(HEADS, [_row(one) for one in found], frozenset({2, 3}))
    if any(one.bytes is None for one in found):
        print_notice("some workspaces were never measured: stoke workspace list --measure")


@command.command("cp")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@apply(BACKEND)
def copy(source: str, target: str, backend: str | None) -> int:
    """Copy a file or folder into a workspace, or out of one.

    NAME:/path is a path in a workspace. As with cp -r, an existing folder gets the copy under its own
    name, and files that exist are replaced. Copying NAME:/ brings everything in it into a folder here.

    A link in a workspace is never followed, and one that leads out of the copy is left out and named.
    A copy that was cut leaves no partial file behind; repeat it to complete it.

    \b
    stoke workspace cp ./data ada:/data
    stoke workspace cp ada:/out/model.bin .
    stoke workspace cp -b docker ada:/ ./ada
    """
    from stoke.workspaces.copying import copy_in, copy_out, split_place

    into, out_of = split_place(target), split_place(source)
    if (into is None) == (out_of is None):
        raise click.UsageError(
            "Write one of the two as NAME:/path: stoke workspace cp ./data NAME:/data; a path of this "
            "machine with a colon begins with ./"
        )
    name, path = into or out_of or ("", "")
    with _keeper(backend) as keeper:
        workspace = keeper.find(name)
        _warn_of_use(workspace)
        with ProgressLine() as progress:
            if into is not None:
                done = copy_in(keeper, Path(source), workspace, path, progress)
            else:
                done = copy_out(keeper, workspace, path, Path(target), progress)
    return _report(done)


@command.command("clone")
@click.argument("name", metavar="NAME")
@click.argument("new", metavar="NEW")
@apply(BACKEND)
def clone(name: str, new: str, backend: str | None) -> int:
    """Copy a workspace into a new one.

    \b
    stoke workspace clone ada ada-before-upgrade
    """
    with _keeper(backend) as keeper:
        workspace = keeper.find(name)
        _warn_of_use(workspace)
        with ProgressLine() as progress:
            done = keeper.clone(workspace, new, progress)
    return _report(done)


@command.command("rename")
@click.argument("name", metavar="NAME")
@click.argument("new", metavar="NEW")
@apply(BACKEND)
def rename(name: str, new: str, backend: str | None) -> None:
    """Give a workspace another name.

    Engines cannot rename a volume: on Docker and on a cluster its files are copied into a new one,
    and the old one is removed once that is complete. Refuses while a job uses it.

    \b
    stoke workspace rename ada grace
    """
    with _keeper(backend) as keeper:
        workspace = keeper.find(name)
        with ProgressLine() as progress:
            keeper.rename(workspace, new, progress)
    print_notice(f"renamed {name} to {new}")


@command.command("remove")
@click.argument("name", metavar="NAME")
@apply(BACKEND)
@YES
def remove(name: str, backend: str | None, yes: bool) -> None:
    """Remove a workspace with everything in it.

    Shows its size, then asks for its name. Refuses while a job uses it.

    \b
    stoke workspace remove ada
    stoke workspace remove ada -b docker --yes
    """
    with _keeper(backend) as keeper:
        workspace = keeper.find(name)
        keeper.refuse_use(workspace, "removed")
        if not yes:
            workspace = _measured(keeper, workspace)
            print_notice(f"{name}: {human_bytes(workspace.bytes)}, {_files(workspace)}")
            confirm_by_name("in it", "workspace", name, "nothing was removed")
        keeper.remove(workspace)
    print_notice(f"removed {name}")


# ---------------------------------------------------------------------------- helpers


def _backends() -> Backends:
    from stoke.backend.pool import Backends
    from stoke.config.loader import load_config

    return Backends(load_config())


@contextmanager
def _keeper(backend: str | None) -> Iterator[WorkspaceKeeper]:
    from stoke.workspaces.keeper import WorkspaceKeeper

    with History() as history, closing(_backends()) as backends:
        yield WorkspaceKeeper(backends.get(backend or backends.config.backend), history)


def _measured(keeper: WorkspaceKeeper, workspace: Workspace) -> Workspace:
    """Return the workspace with its size; unchanged, with a notice, if it cannot be measured."""
    try:
        with ProgressLine() as progress:
            return keeper.measure(workspace, progress)
    except EngineError as error:
        print_notice(f"{workspace.name} could not be measured: {error.what}")
        return workspace


def _warn_of_use(workspace: Workspace) -> None:
    if workspace.in_use_by:
        print_notice(
            f"{workspace.name} is in use by {', '.join(workspace.in_use_by)}: its files may change "
            "while they are copied"
        )


def _report(done: Copied) -> int:
    """Print what was copied and what was not; return the exit code."""
    print_notice(f"copied {counted(done.files, 'file')}, {human_bytes(done.bytes)}")
    for problem in done.problems:
        print_notice(f"left out {problem}")
    return EXIT_ENGINE if done.problems else 0


def _files(workspace: Workspace) -> str:
    return UNKNOWN if workspace.files is None else counted(workspace.files, "file")


def _row(one: Workspace) -> list[Cell]:
    return [
        one.name,
        f"{one.backend} ({one.node})" if one.node else one.backend,
        human_bytes(one.bytes),
        UNKNOWN if one.files is None else f"{one.files:,}",
        time_ago(one.last_used),
        ", ".join(one.in_use_by),
    ]


def _document(one: Workspace) -> dict[str, object]:
    return {
        "name": one.name,
        "backend": one.backend,
        "node": one.node,
        "place": one.place,
        "scope": one.scope or None,
        "bytes": one.bytes,
        "files": one.files,
        "measured_at": rfc3339(one.measured_at),
        "created_at": rfc3339(one.created_at),
        "last_used": rfc3339(one.last_used),
        "in_use_by": list(one.in_use_by),
    }
