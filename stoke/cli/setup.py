"""`stoke setup`: prepares an engine for jobs."""

from __future__ import annotations

import click

from stoke.cli.options import BACKEND, apply


@click.group()
def command() -> None:
    """Prepare an engine for jobs; schedule the pruning of caches.

    \b
    stoke setup image
    stoke setup schedule --unused 30d
    """


@command.command()
@click.option("--base", metavar="IMAGE", help="The image to build on; it brings the Python.")
@click.option("--tag", metavar="NAME", help="What to call the image.")
@apply(BACKEND)
def image(base: str | None, tag: str | None, backend: str | None) -> None:
    """Build the image that jobs run in when they name none.

    Any image with Python 3.9 or later runs jobs; this one has uv already and is there for system
    packages.

    \b
    stoke setup image
    stoke setup image --base python:3.12-slim --tag team/python:3.12
    """
    from stoke.backend import MakesImage, load_backend
    from stoke.cli.output import narrate
    from stoke.config import load_config
    from stoke.errors import RequestError

    name = backend or "docker"
    chosen = load_backend(name, load_config())
    if not isinstance(chosen, MakesImage):
        raise RequestError("backend", f"the {name} backend has no images", "choose: -b docker")
    made = chosen.setup_image(base, tag, narrate)
    narrate(f"built {made}")
    chosen.close()


CALENDAR = {"hourly": "17 * * * *", "daily": "17 4 * * *", "weekly": "17 4 * * 0"}


@command.command()
@click.option(
    "--every",
    type=click.Choice(list(CALENDAR)),
    default="daily",
    show_default=True,
    help="How often.",
)
@click.option("--unused", metavar="TIME", help="As for stoke cache prune; without it, the budgets.")
@click.option("--systemd", is_flag=True, help="A service and a timer of systemd instead.")
@apply(BACKEND)
def schedule(every: str, unused: str | None, systemd: bool, backend: str | None) -> None:
    """Print what prunes the caches regularly: a line for cron, or units for systemd.

    Nothing is installed. It says only what goes wrong, which cron mails and systemd keeps in its
    journal. The schedule is this user's: it needs neither root nor a service of ours.

    \b
    (crontab -l; stoke setup schedule --unused 30d) | crontab -
    stoke setup schedule --every weekly --systemd
    """
    import shlex
    import sys
    from pathlib import Path

    from stoke.errors import RequestError
    from stoke.spec import parse_duration

    argv = [str(Path(sys.argv[0]).absolute()), "cache", "prune", "--yes", "--quiet"]
    if unused is not None:
        try:
            parse_duration(unused)
        except ValueError as error:
            raise RequestError("unused", str(error)) from None
        argv += ["--unused", unused]
    if backend is not None:
        argv += ["--backend", backend]
    line = shlex.join(argv)
    if not systemd:
        # cron takes a % for the line's end.
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
