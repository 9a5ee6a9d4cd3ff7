"""The arguments of the runner, for everything that starts it."""

from __future__ import annotations

from stoke.remote.protocol import RunnerOption

BOOTSTRAP = (
    "import os, sys\n"
    'source = b""\n'
    "while len(source) < int(sys.argv[1]):\n"
    "    piece = os.read(0, int(sys.argv[1]) - len(source))\n"
    "    if not piece:\n"
    "        sys.exit(129)\n"
    "    source += piece\n"
    'exec(compile(source, "session", "exec"))\n'
)
"""Reads the source of a program from stdin, which stays open for the program."""


def runner_arguments(
    payload: str,
    *,
    work: str,
    cache: str | None = None,
    uv: str | None = None,
    pack: str | None = None,
    workspace: str | None = None,
    results: str | None = None,
    inputs: str | None = None,
    ca_bundle: str | None = None,
    flags: tuple[str, ...] = (),
) -> list[str]:
    """Return the runner's arguments; `flags` are options without a value, from `RunnerOption.FLAGS`."""
    arguments = [payload, RunnerOption.WORK, work, *flags]
    if uv is not None:
        arguments += [RunnerOption.UV, uv]
    if pack is not None:
        arguments += [RunnerOption.PACK, pack]
    if workspace is not None:
        arguments += [RunnerOption.WORKSPACE, workspace]
    if results is not None:
        arguments += [RunnerOption.RESULTS, results]
    if inputs is not None:
        arguments += [RunnerOption.INPUTS, inputs]
    if ca_bundle is not None:
        arguments += [RunnerOption.CA_BUNDLE, ca_bundle]
    if cache is not None:
        arguments += [RunnerOption.CACHE, cache]
    return arguments


def session_command(python: str, size: int, entry: str, process: int | None = None) -> list[str]:
    """Return the command for `stoke.remote.session`, whose source of `size` bytes is sent to its stdin.

    It ends with the process with the id `process`.
    """
    command = [python, "-I", "-S", "-c", BOOTSTRAP, str(size), entry]
    return command if process is None else [*command, str(process)]
