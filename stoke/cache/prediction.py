"""What the caches will do for a request, told before it is submitted.

From the history and its volume index alone; no backend is asked, so it can be told as one types.

- "hit": the environment that last answered this request is on the volume. A lock that nobody ran yet is
  one where an environment of exactly its packages is there.
- "partial": it is not, and some packages are: of those in the lock that answered it last, or, where no
  job asked for it yet, of those that the request names (in whatever version).
- "miss": nothing is known to be there.
"""

from __future__ import annotations

from stoke.cache.index import Place, VolumeIndex
from stoke.cache.keys import named_packages, python_hash, request_hash, system_hash
from stoke.cache.metrics import median
from stoke.history.database import History
from stoke.history.job import Counts, Job, Prediction
from stoke.request.requirements import names as requirement_names
from stoke.request.spec import JobSpec

Expected = tuple[str, Counts | None]


def predict(spec: JobSpec, backend: str, history: History) -> Prediction:
    """What to expect of each kind of packages that the request asks for, and how long it takes."""
    expected = {
        kind: _expect(spec, Place(backend, spec.scope, kind), names, VolumeIndex(history))
        for kind, names in named_packages(spec).items()
    }
    if not expected:
        return Prediction()
    outcomes = {kind: outcome for kind, (outcome, _) in expected.items()}
    runs = history.environment_runs(request_hash(spec), backend, spec.scope)
    return Prediction(
        outcomes.get("python"),
        outcomes.get("system"),
        _seconds(runs, outcomes),
        {kind: counts for kind, (_, counts) in expected.items() if counts is not None},
    )


def _expect(spec: JobSpec, place: Place, names: list[str], index: VolumeIndex) -> Expected:
    request = python_hash(spec) if place.kind == "python" else system_hash(spec)
    if not spec.use_cache or request is None:
        return "miss", None
    known = index.answer(place, request)
    if known is not None and known.present:
        return "hit", None
    counts = index.of_lock(place, known.key) if known is not None else None
    parsed = spec.parsed_requirements()
    if counts is None and place.kind == "python" and spec.locked:
        # Whether a line with a marker counts depends on the job's interpreter: it is left out.
        packages = [entry.text.strip() for entry in parsed.requirements if ";" not in entry.text]
        if len(packages) == len(parsed.requirements) and index.is_whole(place, packages):
            return "hit", None
        counts = Counts(index.of_packages(place, packages), len(packages), named=False)
    if counts is None and place.kind == "python":
        texts = [*spec.dependencies, *(entry.text for entry in parsed.requirements)]
        names = requirement_names(text for text in texts if ";" not in text)
    if counts is None:
        counts = Counts(index.of_names(place, names), len(names), named=True)
    return ("partial", counts) if counts.cached else ("miss", None)


def _seconds(runs: list[Job], outcomes: dict[str, str]) -> float | None:
    """What the same request took where it went the same way; None if it never did."""
    taken = [
        run.environment_seconds
        for run in runs
        if {phase.name: phase.outcome for phase in run.phases if phase.name in outcomes} == outcomes
    ]
    return median([seconds for seconds in taken if seconds is not None])
