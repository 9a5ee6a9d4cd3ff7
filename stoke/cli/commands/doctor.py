"""`stoke doctor`: check the setup and suggest fixes."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from stoke.backend.api import CheckResult
from stoke.backend.registry import backend_names, load_backend
from stoke.cli.options import CLUSTER, apply
from stoke.cli.output import paint, print_json
from stoke.errors import StokeError
from stoke.files.paths import config_file, is_there, state_dir
from stoke.text.sanitize import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from stoke.config.model import Config

BROKEN = 1
LEAST_FREE = 1 << 20
"""Bytes that history and logs need at least."""
_MARKS = {True: ("ok", "green"), False: ("no", "red"), None: ("??", "yellow")}


@click.command()
@apply(CLUSTER)
@click.option(
    "--profile",
    metavar="NAME",
    help="Check the pods of jobs with this profile of the configuration.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(profile: str | None, as_json: bool) -> int:
    """Check the setup and suggest fixes.

    The exit code is 1 if the default backend or a package index does not work.

    \b
    stoke doctor
    stoke doctor --profile gpu
    stoke doctor --json | jq '.backends.docker'
    """
    from stoke.config.loader import load_config, unknown_variables
    from stoke.config.model import Config
    from stoke.delivery.index_check import start_check

    own = [_checked("history and logs", _state)]
    try:
        config = load_config()
        own.insert(0, _checked("configuration", _configuration))
    except StokeError as error:
        own.insert(
            0,
            CheckResult("configuration", False, error.what, error.hint or f"edit {config_file()}"),
        )
        config = Config()
    if profile is not None:
        chosen = config.argo.with_profile(profile)
        config = config.model_copy(update={"argo": chosen})
    network = start_check(config)
    backends = {name: _look_at(name, config) for name in backend_names()}
    own += network()
    works = all(result.works is not False for result in own + backends.get(config.backend, []))
    own += [_variable(name) for name in unknown_variables()]  # They break nothing.
    if as_json:
        print_json(
            {
                "works": works,
                "default_backend": config.backend,
                "stoke": [_document(result) for result in own],
                "backends": {
                    name: [_document(result) for result in results]
                    for name, results in backends.items()
                },
            }
        )
    else:
        _show("stoke", own)
        for name, results in backends.items():
            _show(f"{name} (default)" if name == config.backend else name, results)
    return 0 if works and config.backend in backends else BROKEN


def _checked(what: str, look: Callable[[], CheckResult]) -> CheckResult:
    try:
        return look()
    except StokeError as error:
        return CheckResult(what, False, error.what, error.hint)


def _configuration() -> CheckResult:
    path = config_file()
    detail = str(path) if is_there(path) else f"the defaults ({path} does not exist)"
    return CheckResult("configuration", True, detail)


def _state() -> CheckResult:
    """Check whether history and logs can be written, without creating anything."""
    from shutil import disk_usage

    from stoke.text.units import human_bytes

    folder = state_dir()
    there = folder
    while not is_there(there):
        there = there.parent
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        left = disk_usage(there).free
        if left < LEAST_FREE:
            return CheckResult(
                "history and logs", False, f"{folder} is on a disk with {human_bytes(left)} left",
                "make room there, or name another folder: export STOKE_STATE_DIR=/some/folder",
            )  # fmt: skip
        return CheckResult("history and logs", True, str(folder))
    return CheckResult(
        "history and logs", False, f"{folder} cannot be written to",
        "name a folder you can write to: export STOKE_STATE_DIR=/some/folder",
    )  # fmt: skip


def _variable(name: str) -> CheckResult:
    from difflib import get_close_matches

    from stoke.config.model import Config

    settings = [f"STOKE_{field.upper()}" for field in Config.model_fields]
    near = get_close_matches(name.upper().partition("__")[0], settings, 1)
    hint = f"did you mean {near[0]}?" if near else f"remove it: unset {name}"
    return CheckResult("variable", False, f"{name} is set, but is not a setting", hint)


def _look_at(name: str, config: Config) -> list[CheckResult]:
    try:
        backend = load_backend(name, config)
        found = backend.check()
        backend.close()
    except StokeError as error:
        return [CheckResult("backend", False, error.what, error.hint)]
    except Exception as error:
        # A third-party backend may be broken or half installed; check the others all the same.
        return [CheckResult("backend", False, f"does not load: {type(error).__name__}: {error}")]
    return found


def _show(title: str, results: list[CheckResult]) -> None:
    click.echo(paint(clean(title), "bold", sys.stdout))
    for result in results:
        mark = paint(*_MARKS[result.works], sys.stdout)
        click.echo(f"  {mark}  {clean(result.what):<16}  {clean(result.detail)}")
        if result.hint and not result.works:
            click.echo(f"      {'':<16}  {paint('hint:', 'cyan', sys.stdout)} {clean(result.hint)}")


def _document(result: CheckResult) -> dict[str, Any]:
    return {
        "what": result.what,
        "works": result.works,
        "detail": result.detail,
        "hint": result.hint,
    }
