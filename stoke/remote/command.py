"""The arguments of the runner, for everything that starts it."""

from __future__ import annotations

from stoke.remote.protocol import RunnerOption


def runner_arguments(
    payload: str,
    *,
    work: str,
    cache: str | None = None,
    uv: str | None = None,
    pack: str | None = None,
    workspace: str | None = None,
    results: str | None = None,
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
    if cache is not None:
        arguments += [RunnerOption.CACHE, cache]
    return arguments
