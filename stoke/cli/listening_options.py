"""The options of `stoke api` and `stoke serve` that say where they listen."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from stoke.config.model import ListenConfig

T = TypeVar("T", bound=Callable[..., Any])
C = TypeVar("C", bound="ListenConfig")


def listening_options(port: int) -> Callable[[T], T]:
    """Add the options; `port` is the default one."""
    options = (
        click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]"),
        click.option(
            "--port", type=click.IntRange(0, 65535), help=f"0 for a free one.  [default: {port}]"
        ),
        click.option("--certificate", metavar="FILE", help="Certificate of the server, for TLS."),
        click.option(
            "--key", metavar="FILE", help="Key of the certificate, if it is not in the same file."
        ),
        click.option(
            "--without-tls", is_flag=True,
            help="Let other machines connect without TLS: behind a proxy that has it.",
        ),
    )  # fmt: skip

    def add(command: T) -> T:
        for option in reversed(options):
            command = option(command)
        return command

    return add


def with_options(config: C, options: dict[str, Any]) -> C:
    """Return the configuration with the options that were given."""
    given = {name: value for name, value in options.items() if value is not None}
    return config.model_copy(update=given)
