"""`stoke setup`: prepares an engine for jobs."""

from __future__ import annotations

import click

from stoke.cli.options import BACKEND, apply


@click.group()
def command() -> None:
    """Prepare an engine for jobs.

    \b
    stoke setup image
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
