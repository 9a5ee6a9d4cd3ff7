"""`stoke mcp`: tools for coding agents."""

from __future__ import annotations

import signal
import sys

import click

from stoke.cli.output import print_notice
from stoke.errors import EngineError


@click.command()
@click.option("--read-only", is_flag=True, help="Offer no tool that starts or ends jobs.")
def command(read_only: bool) -> None:
    """Serve tools for coding agents, over standard input.

    They follow the Model Context Protocol (MCP), whose client starts this command. The tools run with
    your rights, as the commands do: run, submit, status, logs, results, caches and stop. Jobs run on
    when the client ends.

    \b
    claude mcp add stoke -- stoke mcp
    stoke mcp --read-only
    """
    try:
        import mcp  # noqa: F401
    except ImportError:
        raise EngineError(
            "stoke mcp needs the package mcp, which is not installed",
            "install the extra: pip install 'stoke-tui[mcp]', or from a checkout: "
            "uv tool install '.[mcp]'",
        ) from None
    from stoke.agents.server import serve

    if sys.stdin.isatty():
        print_notice("waiting for an MCP client on standard input; ctrl+c ends this")
    # The thread that reads standard input cannot be interrupted otherwise.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    serve(read_only)
