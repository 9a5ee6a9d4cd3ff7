"""The arguments of the runner, for everything that starts it."""

from __future__ import annotations

from stoke.remote.protocol import Option


def runner_arguments(
    payload: str,
    *,
    work: str,
    cache: str | None = None,
    uv: str | None = None,
    pack: str | None = None,
    flags: tuple[str, ...] = (),
) -> list[str]:
    """Return the runner's arguments; `flags` are options without a value, from `Option.FLAGS`."""
    arguments = [payload, Option.WORK, work, *flags]
    if uv is not None:
        arguments += [Option.UV, uv]
    if pack is not None:
        arguments += [Option.PACK, pack]
    if cache is not None:
        arguments += [Option.CACHE, cache]
    return arguments
