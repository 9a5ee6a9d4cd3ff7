"""The image that a job runs in: choosing, pulling, and building ours."""

from __future__ import annotations

import io
import re
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from backends.common.names import PUBLIC_IMAGE
from backends.docker.engine import AnswerError, Engine
from stoke.backend.api import ImagePullError, PhaseReport
from stoke.errors import EngineError

OUR_IMAGE = "stoke-python:3.13"
"""The default tag of `stoke setup image`, and the default image of jobs if the engine has it."""
NAME_ONE = "build one: stoke setup image; or name one that the engine has: --image IMAGE"
# What registries and engines report for an image that does not exist or may not be pulled.
_NEVER = re.compile(
    r"not found|manifest unknown|does not exist|denied|unauthorized|authentication required"
    r"|invalid reference|no matching manifest|must be lowercase",
    re.IGNORECASE,
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def choose_image(engine: Engine, wanted: str | None, report: PhaseReport) -> str:
    """Return `wanted`, else our image if the engine has it, else the public one; pull it if missing."""
    if wanted is None and has_image(engine, OUR_IMAGE):
        return OUR_IMAGE
    image = wanted or PUBLIC_IMAGE
    if not has_image(engine, image):
        began, clock = time.time(), time.monotonic()
        report("pull", began, None)
        pull(engine, image)
        report("pull", began, time.monotonic() - clock)
    return image


def has_image(engine: Engine, image: str) -> bool:
    try:
        with engine.call(f"look for the image {image}") as api:
            api.inspect_image(image)
    except AnswerError as error:
        if error.status == 404:
            return False
        raise
    return True


def pull(engine: Engine, image: str) -> None:
    """Pull an image. Raises `ImagePullError` if a later try may succeed, else `EngineError`."""
    try:
        with engine.call(f"pull the image {image}") as api:
            for entry in api.pull(image, stream=True, decode=True):
                if "error" in entry:
                    why = str(entry["error"])
                    raise _failed_pull(f"cannot pull the image {image}: {why}")
    except AnswerError as error:
        raise _failed_pull(error.what) from error


def _failed_pull(what: str) -> EngineError:
    kind = EngineError if _NEVER.search(what) else ImagePullError
    return kind(what, NAME_ONE)


def setup_image(engine: Engine, base: str, tag: str, progress: Callable[[str], None]) -> None:
    """Build our image on `base` (Debian or Ubuntu, with Python) and name it `tag`.

    `progress` receives the build's output line by line. Raises `EngineError` with the failed step.
    """
    with engine.call("build the image") as api, tempfile.TemporaryFile() as context:
        architecture = api.version()["Arch"]
        uv, version = _uv_for(architecture)
        if uv is None:
            progress(f"no uv for {architecture} is installed here: the first job downloads it")
        _write_context(context, uv)
        output = api.build(
            fileobj=context,
            custom_context=True,
            tag=tag,
            rm=True,
            forcerm=True,
            decode=True,
            use_config_proxy=True,
            buildargs={"BASE": base, "UV": version},
        )
        _follow_build(output, base, progress)


def _follow_build(
    output: Iterable[dict[str, Any]], base: str, progress: Callable[[str], None]
) -> None:
    step = "the build"
    for entry in output:
        if "error" in entry:
            raise EngineError(
                f"cannot build the image on {base}: {step}: {entry['error']}",
                "see its last lines, or use another base: stoke setup image --base IMAGE",
            )
        for line in str(entry.get("stream") or entry.get("status") or "").splitlines():
            if line.startswith("Step "):
                step = line
            # Skips progress bars, which arrive many times a second with layer ids that mean nothing
            # to users.
            if line.strip() and "progressDetail" not in entry:
                progress(line)


def _uv_for(architecture: str) -> tuple[Path | None, str]:
    """Return our uv and its version, if it runs on the engine's machine."""
    import platform
    import sys
    from importlib.metadata import version

    from uv import find_uv_bin

    same = _ARCHITECTURES.get(platform.machine()) == architecture
    if not (same and sys.platform == "linux"):
        return None, ""
    return Path(find_uv_bin()), version("uv")


def _write_context(out: Any, uv: Path | None) -> None:
    """Write the Dockerfile, and the folder `bin` that it copies, with uv if that runs there."""
    dockerfile = (resources.files("backends.docker") / "Dockerfile").read_bytes()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(dockerfile)
        tar.addfile(entry, io.BytesIO(dockerfile))
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        if uv is not None:
            entry = tarfile.TarInfo("bin/uv")
            entry.size, entry.mode = uv.stat().st_size, 0o755
            with uv.open("rb") as program:
                tar.addfile(entry, program)
    out.seek(0)
