"""The phase "build": compile the modules of a project's packages, once for the same content.

A build is kept on the cache volume as an environment that holds nothing else, so it is measured and
pruned as one. The job gets those files of the wheel that the source lacks, beside the source.
"""

from __future__ import annotations

import json
import os
import shutil
import time

from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import (
    LOCK_SUFFIX,
    METADATA,
    UNFINISHED_SUFFIX,
    HintCode,
    PythonLayout,
)
from stoke.remote.runner.environment_metadata import contents_digest, read_metadata
from stoke.remote.runner.errors import CacheError, NetworkError, PhaseError
from stoke.remote.runner.files import digest, write_atomically
from stoke.remote.runner.install import installed_versions
from stoke.remote.runner.python_setup import make_empty_environment, site_packages
from stoke.remote.runner.uv import Uv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.event_writer import PhaseReporter
    from stoke.remote.runner.job import RemoteJob

COMPILERS = ("cc", "gcc", "clang")


def add_extension_modules(job: RemoteJob, phase: PhaseReporter, packages: list[list[str]]) -> None:
    """Give the job's copy of its project the modules that have to be compiled."""
    os.makedirs(job.path(PythonLayout.ENVIRONMENTS), exist_ok=True)
    hits = 0
    for folder, place in packages:
        key = digest(
            [
                "build",
                job.fingerprint,
                job.payload["settings"]["build"],
                _contents(job.manifest, folder),
            ]
        )
        built = job.path(PythonLayout.ENVIRONMENTS, key[:32])
        job.find_or_build(
            phase,
            built + LOCK_SUFFIX,
            lambda built=built: read_metadata(built),  # type: ignore[misc]
            lambda built=built, folder=folder: _build(job, built, folder),  # type: ignore[misc]
        )
        hits += phase.facts["hit"]
        _copy_missing(job, site_packages(built), place)
    phase.facts.update(hit=hits == len(packages), packages=len(packages), cached=hits)


def _contents(manifest: bytes, folder: str) -> list[object]:
    """Return the entries of a manifest that are in a folder of the project."""
    entries: list[list[object]] = json.loads(manifest)["entries"]
    if folder == ".":
        return list(entries)
    return [entry for entry in entries if str(entry[0]).startswith(folder + "/")]


def _build(job: RemoteJob, built: str, folder: str) -> int:
    """Build a package and install it alone; return 0, the number of packages from the cache."""
    assert job.project is not None
    aside = built + UNFINISHED_SUFFIX
    source = os.path.join(job.work, "build")
    for path in (built, aside, source):
        remove_tree(path)
    path = os.pathsep.join([*job.programs, os.environ.get("PATH", os.defpath)])
    try:
        # Builds write beside the source.
        shutil.copytree(_inside(job.project, folder), source, symlinks=True)
        make_empty_environment(aside, job.fingerprint)
        try:
            job.shared(Uv).run(
                "pip", "install", "--no-deps", "--python", os.path.join(aside, "bin", "python"), source,
                UV_CONFIG_FILE=job.shared(Uv).config_file("install"), PATH=path,
            )  # fmt: skip
        except PhaseError as error:
            if (
                error.hint is None
                and not isinstance(error, (CacheError, NetworkError))
                and not any(shutil.which(name, path=path) for name in COMPILERS)
            ):
                error.hint = (HintCode.NO_COMPILER,)
            raise
        versions = installed_versions(aside)
        metadata = {
            "packages": ["%s==%s" % one for one in versions.items()],
            "built_at": time.time(),
            "lock": "",
            "holds": contents_digest(aside),
        }
        write_atomically(os.path.join(aside, METADATA), json.dumps(metadata))
        os.rename(aside, built)
    except BaseException:
        remove_tree(aside)
        raise
    finally:
        remove_tree(source)
    return 0


def _copy_missing(job: RemoteJob, built: str, place: str) -> None:
    """Copy what a build has and the source lacks to the folder that the source is imported from."""
    assert job.project is not None
    target = _inside(job.project, place)
    for folder, names, files in os.walk(built):
        below = os.path.relpath(folder, built)
        names[:] = [
            name for name in names if name != "__pycache__" and not name.endswith(".dist-info")
        ]
        to = _inside(target, below)
        for name in files:
            path = os.path.join(to, name)
            if not os.path.lexists(path) and not name.endswith(".pth"):
                os.makedirs(to, exist_ok=True)
                shutil.copy(os.path.join(folder, name), path)


def _inside(folder: str, path: str) -> str:
    """Return the real path of something in a folder. `PhaseError` if it is not in there."""
    above = os.path.realpath(folder)
    whole = os.path.realpath(os.path.join(above, path))
    if whole == above or whole.startswith(above + "/"):
        return whole
    raise PhaseError("%r leads out of the project" % path)
