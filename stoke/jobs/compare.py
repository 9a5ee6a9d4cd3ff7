"""Compare two jobs: their requests, environments, phases and results.

The comparison comes from the history and the collected results; no backend is asked. Unknown is None,
never 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import unified_diff
from typing import Any

from stoke.backend.api import CACHE_KINDS
from stoke.errors import EngineError, RequestError
from stoke.history.database import History
from stoke.history.job import PHASES, Job, Phase
from stoke.history.volume_index import ScopeCache, VolumeIndex, canonical_name
from stoke.project.manifest import FOLDER, LINK, ManifestEntry, make_manifest
from stoke.project.manifest_store import read_manifest
from stoke.request.stored import read_stored_fields
from stoke.results.collect import Collected
from stoke.results.compare import ResultsComparison, compare_results
from stoke.results.store import read_results
from stoke.text.sanitize import MASK, looks_secret

_COMPARED_APART = frozenset({"code", "project.digest", "project.files", "project.bytes"})
CONTEXT = 3
"""Lines of code around each change."""


@dataclass(frozen=True)
class Difference:
    """A field of the requests that differs; None in a request that does not set it."""

    what: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class PackageChange:
    """A package by its canonical name, with its version in each job; None if a job lacks it.

    A system package has no version (""): its version depends on the volume's channel.
    """

    name: str
    first: str | None
    second: str | None

    @property
    def change(self) -> str:
        if self.first is None:
            return "added"
        return "removed" if self.second is None else "changed"


@dataclass(frozen=True)
class FileChange:
    """A file of the projects that differs, with its bytes in each job; None if a job lacks it."""

    path: str
    first: int | None
    second: int | None
    first_kind: str | None
    """What it is in the first job: "file", "executable", "folder", or "link to" its target."""
    second_kind: str | None

    @property
    def change(self) -> str:
        if self.first is None:
            return "added"
        return "removed" if self.second is None else "changed"

    def sides(self, size: Callable[[int], str]) -> list[str]:
        """Return a few words for each job that has the file; once if they are the same for both."""
        kinds = self.first_kind, self.second_kind
        shows_kind = None not in kinds and kinds[0] != kinds[1]
        words = []
        for count, kind in zip((self.first, self.second), kinds, strict=True):
            if count is None or kind is None:
                continue
            if kind == "folder" or kind.startswith("link to "):
                words.append(kind)
            elif shows_kind:
                words.append(f"{kind} {size(count)}")
            else:
                words.append(size(count))
        return list(dict.fromkeys(words))


@dataclass(frozen=True)
class PhasePair:
    name: str
    first: Phase | None
    second: Phase | None


@dataclass(frozen=True)
class Comparison:
    """The differences of two jobs.

    `code` holds the lines of a unified diff. `packages` has the kinds of which the packages of both
    jobs are known; `unknown` has the other kinds. `files` is None if no job had a project, or if the
    files of one are no longer known. `results` is None if no job had any, or if those of a job in
    `without_results` are not on this machine.
    """

    first: Job
    second: Job
    spec: tuple[Difference, ...]
    code: tuple[str, ...]
    packages: Mapping[str, tuple[PackageChange, ...]]
    unknown: tuple[str, ...]
    phases: tuple[PhasePair, ...]
    files: tuple[FileChange, ...] | None
    results: ResultsComparison | None
    without_results: tuple[str, ...]
    """The ids of the jobs whose results are not on this machine; empty if neither job has any."""


def compare(first: Job, second: Job, history: History) -> Comparison:
    """Compare two jobs. Raises `EngineError` if the history cannot be read."""
    specs = _spec(first, history), _spec(second, history)
    packages: dict[str, tuple[PackageChange, ...]] = {}
    unknown = []
    for kind in CACHE_KINDS:
        sides = [_versions(job, kind, history) for job in (first, second)]
        if sides[0] is None or sides[1] is None:
            unknown.append(kind)
        elif sides[0] or sides[1]:
            packages[kind] = _changes(sides[0], sides[1])
    results, without_results = _results(first, second)
    return Comparison(
        first,
        second,
        _differences(first, second, *specs),
        tuple(
            unified_diff(
                str(specs[0].get("code", "")).splitlines(),
                str(specs[1].get("code", "")).splitlines(),
                first.id,
                second.id,
                lineterm="",
                n=CONTEXT,
            )
        ),
        packages,
        tuple(unknown),
        _phases(first, second),
        _files(*specs),
        results,
        without_results,
    )


def _results(first: Job, second: Job) -> tuple[ResultsComparison | None, tuple[str, ...]]:
    sides = [_collected(job) for job in (first, second)]
    if not any(job.results_files or job.results_problem for job in (first, second)):
        return None, ()
    if sides[0] is None or sides[1] is None:
        missing = (job.id for job, side in zip((first, second), sides, strict=True) if side is None)
        return None, tuple(dict.fromkeys(missing))
    return compare_results(sides[0], sides[1]), ()


def _collected(job: Job) -> Collected | None:
    """Return the results of a job; None if it has some that are not on this machine."""
    if job.results_at is not None and not job.results_files:
        return Collected(())
    return read_results(job.id)


def _files(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[FileChange, ...] | None:
    digests = [(spec.get("project") or {}).get("digest") for spec in (one, other)]
    if not any(digests):
        return None
    sides = []
    for digest in digests:
        manifest = read_manifest(digest) if digest else make_manifest([])
        if manifest is None:
            return None
        sides.append({entry.path: entry for entry in manifest.entries})
    changed = [
        (path, sides[0].get(path), sides[1].get(path))
        for path in sorted(sides[0].keys() | sides[1].keys())
        if sides[0].get(path) != sides[1].get(path)
    ]
    return tuple(
        FileChange(
            path,
            first.size if first else None,
            second.size if second else None,
            _kind(first),
            _kind(second),
        )
        for path, first, second in changed
    )


def _kind(entry: ManifestEntry | None) -> str | None:
    if entry is None:
        return None
    if entry.kind == LINK:
        return f"link to {entry.target}"
    if entry.kind == FOLDER:
        return "folder"
    return "executable" if entry.mode & 0o100 else "file"


def _spec(job: Job, history: History) -> dict[str, Any]:
    text = history.spec(job.id)
    if text is None:
        return {}
    try:
        return read_stored_fields(text)
    except RequestError as error:
        raise EngineError(f"the request of {job.id} {error.why}") from error


def _differences(
    first: Job, second: Job, one: dict[str, Any], other: dict[str, Any]
) -> tuple[Difference, ...]:
    sides = _flat(one), _flat(other)
    sides[0]["backend"], sides[1]["backend"] = first.backend, second.backend
    names = dict.fromkeys([*sides[0], *sides[1]])
    found = []
    for name in names:
        a, b = sides[0].get(name), sides[1].get(name)
        if a != b:
            variable = name.removeprefix("env.")
            if name.startswith("env.") and looks_secret(variable):
                a, b = (a and MASK), (b and MASK)
            found.append(Difference(name, a, b))
    return tuple(found)


def _flat(spec: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Return the set fields as text, such as {"env.MODE": "fast"}; without the code and the files."""
    out: dict[str, str] = {}
    for name, value in spec.items():
        if before + name in _COMPARED_APART:
            continue
        if isinstance(value, dict):
            out |= _flat(value, f"{before}{name}.")
        elif isinstance(value, list):
            if value:
                out[before + name] = ", ".join(str(one) for one in value)
        elif value is not None and value != "":
            out[before + name] = value if isinstance(value, str) else json.dumps(value)
    return out


def packages_of(job: Job, kind: str, history: History) -> list[str] | None:
    """Return the packages of a kind that a job ran with, as `numpy==2.1.0`; None if unknown."""
    phase = next((one for one in job.phases if one.name == kind), None)
    if phase is None or phase.packages == 0:
        return []
    found: list[str] = []
    if phase.key is not None:
        found = VolumeIndex(history).packages(ScopeCache(job.backend, job.scope, kind), phase.key)
    if not found:
        # A job that built its environment reported the packages; long reports are not stored whole.
        reported = history.packages(job.id).get(kind, {})
        found = list(reported) if len(reported) == phase.packages else []
    return found or None


def _versions(job: Job, kind: str, history: History) -> dict[str, str] | None:
    """Return {canonical name: version}, or None if unknown."""
    found = packages_of(job, kind, history)
    if found is None:
        return None
    versions = {}
    for package in found:
        rest = package if kind == "python" else ""
        version = rest.partition("==")[2] or rest.partition("@")[2].strip()
        versions[canonical_name(kind, package)] = version
    return versions


def _changes(one: dict[str, str], other: dict[str, str]) -> tuple[PackageChange, ...]:
    return tuple(
        PackageChange(name, one.get(name), other.get(name))
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    )


def _phases(first: Job, second: Job) -> tuple[PhasePair, ...]:
    sides = [{phase.name: phase for phase in job.phases} for job in (first, second)]
    names = [name for name in PHASES if name in sides[0] or name in sides[1]]
    names += [name for name in {**sides[0], **sides[1]} if name not in PHASES]
    return tuple(PhasePair(name, sides[0].get(name), sides[1].get(name)) for name in names)
