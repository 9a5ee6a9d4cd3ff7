"""Build an environment from a lockfile."""

from __future__ import annotations

import json
import os
import re
import time

from stoke.remote.common.names import canonical
from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import MAX_METADATA, METADATA, UNFINISHED_SUFFIX
from stoke.remote.runner.environment_metadata import contents_digest
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.files import write_atomically
from stoke.remote.runner.lockfile_text import (
    entries_of,
    indexes_of,
    packages_of,
    requirement_of,
)
from stoke.remote.runner.python_setup import make_output_live, site_packages
from stoke.remote.runner.uv import Uv
from stoke.remote.runner.uv_progress import UvProgress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.runner.job import RemoteJob


def build_environment(job: RemoteJob, folder: str, lockfile: str) -> int:
    """Build an environment aside and rename it; return how many packages were in the cache."""
    aside = folder + UNFINISHED_SUFFIX
    if os.path.lexists(folder):
        job.events.note("the environment is damaged or was changed by a job; rebuilding it")
        remove_tree(folder)
    remove_tree(aside)
    packages = packages_of(lockfile)
    try:
        job.shared(Uv).run("venv", "--quiet", "--relocatable", "--python", job.python, aside)
        misses = set(_install(job, aside, lockfile) if packages else [])
        packages = applicable(packages, installed_versions(aside))
        make_output_live(site_packages(aside), job.payload["live_output"])
        metadata = json.dumps(
            {
                "packages": packages,
                "built_at": time.time(),
                "lock": lockfile,
                "holds": contents_digest(aside),
            }
        )
        if len(metadata) > MAX_METADATA:
            raise PhaseError("the lockfile is longer than %d MiB" % (MAX_METADATA / 1024**2))
        write_atomically(os.path.join(aside, METADATA), metadata)
        os.rename(aside, folder)
    except BaseException:
        remove_tree(aside)
        raise
    # Packages that were only needed to build others are not in the lockfile and do not count.
    fetched = [package for package in packages if package in misses]
    cached = [package for package in packages if package not in misses]
    job.events.packages("python", cached, fetched)
    return len(cached)


def _install(job: RemoteJob, folder: str, lockfile: str) -> list[str]:
    """Install exactly the lockfile; return the packages that were not in the cache."""
    hashed: list[str] = []
    bare: list[str] = []
    for entry in entries_of(lockfile):
        (hashed if "--hash=" in entry else bare).append(entry)
    misses: list[str] = []
    for entries, flags in ((hashed, ["--require-hashes"]), (bare, [])):
        if not entries:
            continue
        if not flags:
            names = ", ".join(entry.split()[0] for entry in entries)
            job.events.note("installed without a hash, because uv found none: " + names)
        err, _ = job.shared(Uv).run(
            "pip", "install", "--verbose", "--no-deps", *flags, "--python",
            os.path.join(folder, "bin", "python"), *_requirements_options(job, entries, lockfile),
            progress=UvProgress(job.events, "python"),
            UV_CONFIG_FILE=job.shared(Uv).config_file("install"),
        )  # fmt: skip
        misses += re.findall(r"Identified uncached distribution: (\S+)", err)
    return misses


def _requirements_options(job: RemoteJob, entries: list[str], lockfile: str) -> list[str]:
    """Write these entries into files, each with the index that the lockfile names for it.

    Return the options of `uv pip install` that name the files. uv asks one index for a package, even
    if the file with the right hash is at another one. Only a project can name the index of a package,
    so such entries go into a project, and their hashes into a constraints file.
    """
    settings = job.payload["settings"]
    indexes = indexes_of(lockfile) if settings["several"] else {}
    pinned: dict[str, str] = {}
    plain: list[str] = []
    requirements: list[str] = []
    for entry in entries:
        url = indexes.get(canonical(entry))
        if url is None or url not in settings["indexes"]:
            plain.append(entry)
            continue
        pinned[canonical(entry)] = url
        requirements.append(requirement_of(entry))
    path = os.path.join(job.work, "requirements.install")
    write_atomically(path, "".join([*(line + "\n" for line in settings["lines"]), *plain]))
    if not pinned:
        # The lockfile names no indexes. Its hashes make it safe to ask more indexes than the first
        # one that has a package.
        hashed = not indexes and all("--hash=" in entry for entry in entries)
        strategy = settings["strategy"] if hashed else None
        return [*(["--index-strategy", strategy] if strategy else []), "--requirements", path]
    hashes = os.path.join(job.work, "hashes.install")
    write_atomically(hashes, "".join(entry for entry in entries if canonical(entry) in pinned))
    project = os.path.join(job.work, "install", "pyproject.toml")
    os.makedirs(os.path.dirname(project), exist_ok=True)
    write_atomically(project, pinned_project(requirements, pinned, settings["indexes"]))
    return ["--requirements", path, "--requirements", project, "--constraints", hashes]


def pinned_project(requirements: list[str], pinned: dict[str, str], indexes: dict[str, str]) -> str:
    """Return a pyproject.toml with these requirements, each from its index."""

    def toml(value: object) -> str:
        return json.dumps(value, ensure_ascii=False)  # A JSON text is a TOML text.

    lines = ["[project]", 'name = "stoke-request"', 'version = "0"']
    lines.append("dependencies = " + toml(requirements))
    for url in sorted(set(pinned.values())):
        lines += ["[[tool.uv.index]]", "name = " + toml(indexes[url]), "url = " + toml(url)]
        lines.append("explicit = true")
    lines.append("[tool.uv.sources]")
    lines += ["%s = {index = %s}" % (name, toml(indexes[pinned[name]])) for name in pinned]
    return "".join(line + "\n" for line in lines)


def installed_versions(folder: str) -> dict[str, str]:
    """Return canonical name to version for each package in an environment."""
    found: dict[str, str] = {}
    libraries = os.path.join(folder, "lib")
    for python in os.listdir(libraries) if os.path.isdir(libraries) else ():
        for name in os.listdir(os.path.join(libraries, python, "site-packages")):
            if name.endswith(".dist-info"):
                package, _, version = name[: -len(".dist-info")].rpartition("-")
                found[canonical(package)] = version
    return found


def applicable(packages: list[str], present: dict[str, str]) -> list[str]:
    """Return the packages of a lockfile that are installed: markers exclude the others.

    A lockfile may hold several versions of a package, each with its own marker.
    """
    import collections

    counts = collections.Counter(canonical(package) for package in packages)
    found = []
    for package in packages:
        version = present.get(canonical(package))
        is_only_one = counts[canonical(package)] == 1
        if version is not None and (is_only_one or package.rpartition("==")[2].strip() == version):
            found.append(package)
    return found
