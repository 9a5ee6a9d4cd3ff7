"""Predict what the caches will do for a request.

The prediction comes from the history and its volume index. It asks no backend, so the form can show it
while the user types.

- "hit": the environment that last served this request is on the volume. A lockfile that no job has used
  yet is a hit if an environment of exactly its packages is there.
- "partial": that environment is missing, but some of its packages are there: packages of the lockfile
  that served the request last or, if no job has made this request, packages that the request names, in
  any version.
- "miss": nothing is known to be there.
"""

from __future__ import annotations

from stoke.cache.keys import RequestKeys
from stoke.cache.median import median
from stoke.history.database import History
from stoke.history.job import Counts, Job, Prediction
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.request.requirement import names as requirement_names
from stoke.request.spec import JobSpec

Expected = tuple[str, Counts | None]


def predict(spec: JobSpec, keys: RequestKeys, backend: str, history: History) -> Prediction:
    """Predict the outcome for each kind of package that the request names, and the seconds it takes."""
    expected = {
        kind: _expect(spec, keys, ScopeCache(backend, spec.scope, kind), VolumeIndex(history))
        for kind in keys.packages
    }
    if not expected:
        return Prediction()
    outcomes = {kind: outcome for kind, (outcome, _) in expected.items()}
    runs = history.environment_runs(keys.request, backend, spec.scope)
    return Prediction(
        outcomes.get("python"),
        outcomes.get("system"),
        _seconds(runs, outcomes),
        {kind: counts for kind, (_, counts) in expected.items() if counts is not None},
    )


def _expect(spec: JobSpec, keys: RequestKeys, place: ScopeCache, index: VolumeIndex) -> Expected:
    request = keys.python if place.kind == "python" else keys.system
    names = keys.packages[place.kind]
    if not spec.use_cache or request is None:
        return "miss", None
    known = index.environment_for(place, request)
    if known is not None and known.present:
        return "hit", None
    counts = index.count_of_lock(place, known.key) if known is not None else None
    parsed = spec.parsed_requirements()
    if counts is None and place.kind == "python" and spec.locked:
        # Whether a line with a marker counts depends on the job's interpreter: it is left out.
        packages = [entry.text.strip() for entry in parsed.requirements if ";" not in entry.text]
        if len(packages) == len(parsed.requirements) and index.has_environment_of(place, packages):
            return "hit", None
        counts = Counts(index.count_packages(place, packages), len(packages), named=False)
    if counts is None and place.kind == "python":
        texts = [*spec.dependencies, *(entry.text for entry in parsed.requirements)]
        names = requirement_names(text for text in texts if ";" not in text)
    if counts is None:
        counts = Counts(index.count_names(place, names), len(names), named=True)
    return ("partial", counts) if counts.cached else ("miss", None)


def _seconds(runs: list[Job], outcomes: dict[str, str]) -> float | None:
    """Return the median seconds of earlier runs of this request with the same outcomes; None without
    any."""
    taken = [
        run.environment_seconds
        for run in runs
        if {phase.name: phase.outcome for phase in run.phases if phase.name in outcomes} == outcomes
    ]
    return median([seconds for seconds in taken if seconds is not None])
