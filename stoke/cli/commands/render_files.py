"""`stoke render files`: which files of the project would travel, and which would not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoke.cli.output import Cell, counted, print_json, print_notice, print_table
from stoke.errors import RequestError
from stoke.text.units import human_bytes

if TYPE_CHECKING:
    from stoke.jobs.request import Request
    from stoke.project.listing import ProjectListing


def print_files(request: Request, as_json: bool) -> None:
    """Print what a submission of the request would send. Raises `RequestError` as that would, but
    lists a project above the limit, too, with a notice."""
    project = request.spec.project
    if project is None:
        if as_json:
            print_json({"root": None, "files": [], "links": [], "folders": [], "left_out": []})
        else:
            print_notice(
                "only the code travels: it is in no project, and imports nothing beside it"
            )
        return
    from stoke.jobs.snapshot_delivery import fits
    from stoke.project.listing import list_project

    listing = list_project(project, request.spec.code, request.project_files)
    if as_json:
        print_json({"root": project.root, **_document(listing)})
    else:
        _print(listing, project.root)
    try:
        is_sent = fits(listing, request)
    except RequestError as error:
        print_notice(f"this would be refused: {error.why}")
    else:
        if not is_sent:
            print_notice("too large for a line of code, which would run without these files")


def _document(listing: ProjectListing) -> dict[str, object]:
    sizes = sorted(listing.sizes())
    return {
        "bytes": sum(size for _, size in sizes),
        "files": [{"path": path, "bytes": size} for path, size in sizes],
        "links": [{"path": path, "target": target} for path, target in listing.links],
        "folders": list(listing.folders),
        "left_out": [{"path": path, "why": reason} for path, reason in listing.left_out],
    }


def _print(listing: ProjectListing, root: str) -> None:
    sizes = sorted(listing.sizes())
    rows: list[list[Cell]] = [[human_bytes(size), path] for path, size in sizes]
    rows += [["link", f"{path} -> {target}"] for path, target in listing.links]
    rows += [["empty", f"{path}/"] for path in listing.folders]
    print_table(["SIZE", "FILE"], rows, frozenset({0}))
    if listing.left_out:
        click.echo()
        print_table(["LEFT OUT", "WHY"], [[path, why] for path, why in listing.left_out])
    total = human_bytes(sum(size for _, size in sizes))
    print_notice(f"{counted(len(sizes), 'file')}, {total}, from {root}")
