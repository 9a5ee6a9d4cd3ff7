"""`stoke setup`: prepare an engine for jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from stoke.cli.options import BACKEND, CLUSTER, apply
from stoke.errors import RequestError

if TYPE_CHECKING:
    from stoke.backend.capabilities import Preparation


@click.group()
def command() -> None:
    """Prepare an engine for jobs; schedule the pruning of caches; teach a coding agent.

    \b
    stoke setup image
    stoke setup argo --namespace jobs --apply
    stoke setup schedule --unused 30d
    stoke setup agent
    """


@command.command()
@click.option("--base", metavar="IMAGE", help="The base image, which has the Python.")
@click.option("--tag", metavar="NAME", help="The name of the new image.")
@apply(BACKEND)
def image(base: str | None, tag: str | None, backend: str | None) -> None:
    """Build the image for jobs that name none.

    Any image with Python 3.9 or later runs jobs. This one contains uv, and Nix for system packages.

    \b
    stoke setup image
    stoke setup image --base python:3.12-slim --tag team/python:3.12
    """
    from stoke.backend.capabilities import MakesImage
    from stoke.backend.registry import load_backend
    from stoke.cli.output import print_notice
    from stoke.config.loader import load_config

    name = backend or "docker"
    chosen = load_backend(name, load_config())
    if not isinstance(chosen, MakesImage):
        raise RequestError("backend", f"the {name} backend has no images", "choose: -b docker")
    made = chosen.setup_image(base, tag, print_notice)
    print_notice(f"built {made}")
    chosen.close()


@command.command()
@apply(CLUSTER)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="SCOPE",
    help="A scope to create claims for. Can be repeated.",
)
@click.option(
    "--user", "users", multiple=True, metavar="NAME", help="A user who may submit. Can be repeated."
)
@click.option(
    "--group",
    "groups",
    multiple=True,
    metavar="NAME",
    help="A group that may submit. Can be repeated.",
)
@click.option("--unused", metavar="TIME", help="Prune daily what was not used for this long: 30d.")
@click.option("--apply", "change", is_flag=True, help="Show the changes, ask, and apply them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option(
    "--allow-plugin", is_flag=True,
    help="Allow the kubeconfig's credential plugin (exec) to run.",
)  # fmt: skip
def argo(
    scopes: tuple[str, ...],
    users: tuple[str, ...],
    groups: tuple[str, ...],
    unused: str | None,
    change: bool,
    yes: bool,
    allow_plugin: bool,
) -> None:
    """Print the manifests that jobs need in a namespace, or apply them.

    Includes the minimal rights for Argo's part of each pod and for users who submit, the claims if
    caches are kept in claims and, with --unused, a schedule that prunes existing caches. Where the
    namespace's Pod Security forbids node folders or root, it prepares for jobs without them, and names
    the settings that they need.

    \b
    stoke setup argo --namespace jobs --user ada > setup.yaml
    stoke setup argo --namespace jobs --user ada --apply
    """
    import json
    from contextlib import closing

    from stoke.backend.capabilities import PreparesNamespace
    from stoke.backend.registry import load_backend
    from stoke.cli.output import print_notice
    from stoke.config.loader import load_config
    from stoke.request.spec import check_scope

    config = load_config()
    for scope in scopes:
        try:
            check_scope(scope)
        except ValueError as error:
            raise RequestError("scope", str(error)) from None
    backend = load_backend("argo", config)
    assert isinstance(backend, PreparesNamespace)
    with closing(backend):
        if allow_plugin:
            allowed = backend.allow_plugin()
            print_notice(
                f"allowed: {allowed}" if allowed else "the kubeconfig names no credential plugin"
            )
            return
        prune = None if unused is None else (CALENDAR["daily"], _seconds(unused))
        wanted, needed = backend.preparations(scopes or (config.scope,), users, groups, prune)
        if needed:
            settings = " and ".join(
                f"argo.{name} = {json.dumps(value)}" for name, value in needed.items()
            )
            print_notice(f"the Pod Security of this namespace admits only jobs with {settings}")
        if change:
            _apply_all(wanted, yes)
        else:
            click.echo("---\n".join(one.manifest for one in wanted), nl=False)


def _apply_all(wanted: list[Preparation], yes: bool) -> None:
    """Show the changes, ask, and apply them."""
    from stoke.cli.confirm import confirm
    from stoke.cli.output import print_notice
    from stoke.text.sanitize import clean

    changes = []
    for one in wanted:
        difference = one.compare()
        if difference:
            changes.append(one)
            click.echo("\n".join(clean(line) for line in difference.splitlines()))
    if not changes:
        print_notice("nothing to change: everything exists already")
        return
    if not yes:
        confirm("Apply these changes?", "apply", "nothing was changed")
    for one in changes:
        one.apply()
        print_notice(f"applied {one.name}")


def _seconds(unused: str) -> float:
    from stoke.cli.option_errors import read_option
    from stoke.text.units import parse_duration

    return read_option("--unused", unused, parse_duration)


CALENDAR = {"hourly": "17 * * * *", "daily": "17 4 * * *", "weekly": "17 4 * * 0"}


@command.command()
@click.option(
    "--every",
    type=click.Choice(list(CALENDAR)),
    default="daily",
    show_default=True,
    help="How often to prune.",
)
@click.option(
    "--unused", metavar="TIME", help="As in stoke cache prune; default: the budgets apply."
)
@click.option("--systemd", is_flag=True, help="Print a systemd service and timer instead.")
@apply(BACKEND)
def schedule(every: str, unused: str | None, systemd: bool, backend: str | None) -> None:
    """Print a schedule that prunes the caches: a line for cron, or units for systemd.

    Installs nothing. The scheduled command prints only errors, which cron mails and systemd writes to
    its journal. It runs as this user and needs no root.

    \b
    (crontab -l; stoke setup schedule --unused 30d) | crontab -
    stoke setup schedule --every weekly --systemd
    """
    import shlex

    from stoke.schedules.command import own_program

    argv = [own_program(), "cache", "prune", "--yes", "--quiet"]
    if unused is not None:
        _seconds(unused)
        argv += ["--unused", unused]
    if backend is not None:
        argv += ["--backend", backend]
    line = shlex.join(argv)
    if not systemd:
        # In a crontab, % ends the line.
        click.echo(f"{CALENDAR[every]} {line.replace('%', chr(92) + '%')}")
        return
    folder = "~/.config/systemd/user"
    click.echo(f"""# {folder}/stoke-prune.service
[Unit]
Description=Prune the caches of stoke

[Service]
Type=oneshot
ExecStart={line.replace("%", "%%")}

# {folder}/stoke-prune.timer
[Unit]
Description=Prune the caches of stoke {every}

[Timer]
OnCalendar={every}
Persistent=true

[Install]
WantedBy=timers.target

# then: systemctl --user daemon-reload && systemctl --user enable --now stoke-prune.timer""")


@command.command()
def keys() -> None:
    """Print a keys.toml with every action of the screens and its keys.

    \b
    stoke setup keys > ~/.config/stoke/keys.toml
    """
    from stoke.cli.screens import keys_file

    click.echo(keys_file(), nl=False)


@command.command()
def agent() -> None:
    """Print a skill file that teaches a coding agent to use stoke.

    It is Markdown with front matter: the commands, exit codes, logs, caches, and how to register
    the tools of stoke mcp.

    \b
    stoke setup agent > .claude/skills/stoke/SKILL.md
    """
    from stoke.agents.skill import skill_file

    click.echo(skill_file(), nl=False)
