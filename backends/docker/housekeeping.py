"""Measure, prune or clear a volume: a container mounts it and runs `stoke.remote.housekeeping`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from backends.common.names import KIND, MANAGED
from backends.docker.container import FOLDER, HOUSEKEEPING, archive_of, housekeeping_config
from backends.docker.engine import AnswerError, Engine
from backends.docker.removal import REMOVAL_SECONDS, remove_container
from stoke.backend.api import Volume
from stoke.cache.volumes import lines_of, read_outcome
from stoke.config.model import Config
from stoke.errors import EngineError
from stoke.remote.bundle import housekeeping_source

# A container that was created but not started for so long was left behind by a killed program.
ABANDONED_SECONDS = 60.0


def housekeep(
    engine: Engine,
    config: Config,
    image: str,
    volume: Volume,
    operation: Mapping[str, object],
    progress: Callable[[str], None],
) -> dict[str, Any]:
    remove_abandoned(engine)
    what = f"measure or clean {volume.name}"
    with engine.call(what) as api:
        body = housekeeping_config(volume, operation, config, image)
        container: str = api.create_container_from_config(body)["Id"]
    try:
        with engine.call(what) as api:
            program = {HOUSEKEEPING: housekeeping_source(volume.kind)}
            api.put_archive(container, FOLDER, archive_of(program))
            # Attached before the start, so that nothing is missed and no log has to be kept.
            output = api.attach(container, stream=True, demux=True, logs=False)
            api.start(container)
            return read_answer(output, what, progress)
    finally:
        _remove(engine, container)


Output = Iterable[tuple[bytes | None, bytes | None]]
"""Pieces of stdout and stderr of an attached container."""


def read_answer(output: Output, what: str, progress: Callable[[str], None]) -> dict[str, Any]:
    """Return the result that `stoke.remote.housekeeping` prints; `what` completes "cannot ..."."""
    errors: list[bytes] = []
    try:
        return read_outcome(lines_of(stdout_of(output, errors)), progress)
    except EngineError as error:
        if not errors:
            raise
        last = b"".join(errors).decode(errors="replace").strip().splitlines()[-1:]
        raise EngineError(f"cannot {what}: {' '.join(last)}") from error


def stdout_of(output: Output, errors: list[bytes]) -> Iterator[bytes]:
    """Give what arrives on stdout; collect the last pieces of stderr in `errors`."""
    for out, err in output:
        if err:
            errors.append(err)
            del errors[:-100]
        if out:
            yield out


def remove_abandoned(engine: Engine) -> None:
    filters = {"label": [f"{MANAGED}=true", f"{KIND}=housekeeping"], "status": ["created"]}
    with engine.call("look for old housekeeping") as api:
        old = time.time() - ABANDONED_SECONDS
        listed = api.containers(all=True, filters=filters)
        abandoned = [str(one["Id"]) for one in listed if float(one["Created"]) < old]
    for container in abandoned:
        _remove(engine, container)


def _remove(engine: Engine, container: str) -> None:
    """Remove the container, so that its volume is free."""
    try:
        remove_container(engine, container, "end housekeeping")
    except AnswerError as error:
        if error.status != 409:
            raise
        # The engine is removing the ended container already.
        with suppress(EngineError), engine.call("end housekeeping") as api:
            api.wait(container, timeout=REMOVAL_SECONDS, condition="removed")
