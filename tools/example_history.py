"""A history of two weeks on three backends, for pictures. It is written into the history and the
spool, so that the program shows it as it shows any jobs, and is the same at each call.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stoke.backend.api import Capabilities, EngineState, EngineStatus, Volume
from stoke.backend.capabilities import EntryKind, ResultEntry
from stoke.files.paths import job_dir
from stoke.history.database import CacheSize, History
from stoke.history.job import Job, JobState, Phase, Usage
from stoke.history.usage import UsageCurves
from stoke.history.volume_index import ScopeCache, VolumeIndex
from stoke.logs.spool import STDERR, STDOUT, SpoolWriter
from stoke.project.manifest import FILE, ManifestEntry, make_manifest
from stoke.project.manifest_store import save_manifest
from stoke.results.store import store_results
from tests.tui.conftest import NOW, PLAIN, Desk, FakeBackend, _Point
from tools.example_logs import FAILED_FIT, FITTED, TRAINING

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MB, GB = 10**6, 10**9
DAYS = 14
_ID = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True)
class Program:
    """What is run again and again: its packages, and how long its phases take in seconds."""

    name: str
    backend: str
    packages: tuple[str, ...]
    installed: int
    cold: float
    run: float
    received: int
    scope: str = "default"
    system: tuple[str, ...] = ()


PROGRAMS = {
    one.name: one
    for one in (
        Program("fit-model", "docker", ("numpy", "pandas", "scikit-learn"), 9, 6.4, 48, 94 * MB),
        Program("train-net", "argo", ("torch", "numpy", "tqdm"), 27, 71.0, 1240, 2840 * MB),
        Program("daily-report", "docker", ("polars", "matplotlib"), 14, 5.2, 21, 88 * MB),
        Program("score-batch", "argo", ("torch", "pyarrow"), 29, 64.0, 310, 2880 * MB),
        Program("clean-events", "local", ("polars", "pyarrow"), 3, 2.9, 34, 0),
        Program("plot-residuals", "local", ("numpy", "matplotlib"), 11, 3.1, 4, 0),
        Program("extract-audio", "docker", ("numpy", "soundfile"), 4, 2.4, 95, 31 * MB,
                system=("ffmpeg",)),
        Program("sweep-depth", "docker", ("xgboost", "numpy"), 4, 8.8, 160, 210 * MB, "team-a"),
    )
}  # fmt: skip


@dataclass
class Example:
    """Writes jobs with ids that are the same at each call."""

    desk: Desk
    chance: random.Random = field(default_factory=lambda: random.Random(20))
    built: set[str] = field(default_factory=set)
    """The programs whose environments are there."""

    def job(
        self,
        name: str,
        state: JobState = JobState.SUCCEEDED,
        *,
        age: float,
        hit: bool | None = None,
        run: float | None = None,
        log: bytes = b"",
        errors: bytes = b"",
        **columns: Any,
    ) -> Job:
        program = PROGRAMS[name]
        job_id = f"{name}-{''.join(self.chance.choices(_ID, k=6))}"
        begun = NOW - age
        hash_of = digest(name)
        phases, ready = self._phases(program, begun, hit)
        columns.setdefault("exit_code", 0 if state == JobState.SUCCEEDED else None)
        if hit is None and state == JobState.RUNNING:
            raise ValueError(f"{name} runs without an environment")
        taken = program.run * self.chance.uniform(0.9, 1.2) if run is None else run
        if hit is not None:
            going = state == JobState.RUNNING
            phases.append(Phase("run", ready, None if going else taken))
        spec = {
            "dependencies": list(program.packages), "system": list(program.system),
            "scope": program.scope, **columns.pop("spec", {}),
        }  # fmt: skip
        if state == JobState.QUEUED:
            phases = []
            waiting = EngineState(EngineStatus.RUNNING, reason=columns.get("reason"))
            self.desk.backends[program.backend].states[job_id] = waiting
        if state.finished:
            columns.setdefault("finished_at", ready + (taken if hit is not None else 0.0))
            if hit is not None:
                columns.setdefault("cpu_seconds", taken * 1.7)
                columns.setdefault("peak_memory", 180 * MB + round(taken * MB))
        predicted = None if hit is None else "hit" if hit or self.chance.random() < 0.2 else "miss"
        self.desk.job(
            job_id, state, age=age, name=name, backend=program.backend, spec=spec, started_at=ready,
            request_hash=hash_of, predicted_python=predicted,
            log_bytes=len(log + errors), log_lines=(log + errors).count(b"\n"), **columns,
        )  # fmt: skip
        self.desk.raw(job_id, "UPDATE jobs SET scope = ? WHERE id = ?", program.scope)
        for phase in phases:
            self.desk.history.set_phase(job_id, phase)
        self.desk.history.add_asked(hash_of, "python", program.packages)
        self.desk.history.add_asked(hash_of, "system", program.system)
        write_log(job_id, begun, log, errors)
        recorded = self.desk.history.get(job_id)
        assert recorded is not None
        return recorded

    def _phases(
        self, program: Program, begun: float, hit: bool | None
    ) -> tuple[list[Phase], float]:
        """Return the phases before the code, and when they end."""
        counted = program.backend != "local"
        at = begun
        phases = []

        def add(name: str, seconds: float, *more: Any) -> None:
            nonlocal at
            seconds *= self.chance.uniform(0.85, 1.15)
            phases.append(Phase(name, at, seconds, *more))
            at += seconds

        if program.backend == "argo":
            add("schedule", 1.4)
        add("start", {"local": 0.01, "docker": 0.32, "argo": 0.9}[program.backend])
        if hit is None:
            return phases, at
        count, received = program.installed, program.received if counted else None
        add("lock", 0.003 if hit else 0.8, hit, count, None, 0 if counted else None)
        if program.system:
            add("system", 0.001 if hit else 14.0, hit, 38, 38 if hit else 0,
                0 if hit else 310 * MB, "f" * 32)  # fmt: skip
        add("python", 0.0012 if hit else program.cold, hit, count, count if hit else 0,
            0 if hit and counted else received, digest(program.name)[:32])  # fmt: skip
        return phases, at

    def use(self, job: Job, seconds: float, cores: float, memory: int) -> None:
        """Add the usage of a job's code over the last `seconds`."""
        curves = UsageCurves(self.desk.history)
        now = job.finished_at or NOW
        load = cores
        for step in range(40):
            load = min(
                cores * 1.2, max(cores * 0.3, load + self.chance.uniform(-0.25, 0.25) * cores)
            )
            rising = memory * min(1.0, 0.45 + step / 55)
            curves.add(job.id, Usage(now - seconds + seconds * step / 39, load, round(rising)))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write_log(job_id: str, begun: float, log: bytes, errors: bytes = b"") -> None:
    """Write a log whose lines are a quarter of a second apart."""
    writer = SpoolWriter(job_dir(job_id))
    times = itertools.count(round((begun + 1) * 1e9), 250_000_000)
    for stream, text in ((STDOUT, log), (STDERR, errors)):
        for line in text.splitlines(keepends=True):
            writer.add(stream, next(times), line)
    writer.close()


def fill(desk: Desk) -> None:
    """Write the whole history."""
    example = Example(desk)
    _two_weeks(example)
    _today(example)
    _two_fits(example)
    _sizes(desk, example.chance)


def _two_weeks(example: Example) -> None:
    names = [*PROGRAMS]
    for day in range(DAYS, 0, -1):
        # A release of a package changes the environment of each program that names it.
        changed = names[day % len(names)]
        for number in range(7 + day % 4):
            name = example.chance.choice(names)
            hit = name in example.built and (name != changed or number > 4)
            example.built.add(name)
            state = JobState.SUCCEEDED if example.chance.random() < 0.93 else JobState.FAILED
            age = day * DAY - number * 1.1 * HOUR + example.chance.uniform(0, HOUR)
            code = 0 if state == JobState.SUCCEEDED else 1
            example.job(name, state, age=age, hit=hit, log=FITTED, exit_code=code)


def _today(example: Example) -> None:
    """Write jobs in every state, the oldest first."""
    job, failed = example.job, JobState.FAILED
    for name, hours in (
        *(("clean-events", 11.0), ("daily-report", 10.8), ("plot-residuals", 10.6)),
        *(("extract-audio", 10.1), ("score-batch", 9.3), ("sweep-depth", 8.8), ("fit-model", 8.1)),
        *(("sweep-depth", 7.5), ("plot-residuals", 7.2), ("clean-events", 6.4)),
    ):
        job(name, age=hours * HOUR, hit=True, log=FITTED)
    job(
        "train-net",
        failed,
        age=5.5 * HOUR,
        hit=True,
        run=2210,
        exit_code=137,
        reason="out of memory",
    )
    job("daily-report", age=4.8 * HOUR, hit=False, log=FITTED)
    job("sweep-depth", JobState.STOPPED, age=4.1 * HOUR, hit=True, run=80, exit_code=143,
        reason="stopped")  # fmt: skip
    job("extract-audio", age=3.3 * HOUR, hit=True)
    job("score-batch", failed, age=2.6 * HOUR, hit=True, run=600, exit_code=124, reason="timeout")
    job("clean-events", age=2.2 * HOUR, hit=True)
    job("plot-residuals", failed, age=1.7 * HOUR, exit_code=125, reason="lock: no solution: "
        "matplotlib>=3.10 needs numpy>=1.23, and the request asks for numpy<1.23")  # fmt: skip
    job("plot-residuals", age=1.6 * HOUR, hit=False, log=FITTED)
    job("sweep-depth", age=58 * MINUTE, hit=True)
    job("daily-report", age=44 * MINUTE, hit=True)
    fitted = job("fit-model", failed, age=31 * MINUTE, hit=True, run=52.0, exit_code=1,
                 log=FAILED_FIT[0], errors=FAILED_FIT[1])  # fmt: skip
    example.use(fitted, 52.0, 1.9, 940 * MB)
    for name, minutes, cores, memory in (
        ("train-net", 19.0, 7.4, 11 * GB),
        ("sweep-depth", 12.5, 3.9, 1300 * MB),
        ("extract-audio", 6.0, 1.0, 260 * MB),
        ("clean-events", 2.4, 1.8, 2100 * MB),
    ):
        running = job(name, JobState.RUNNING, age=minutes * MINUTE, hit=True, log=TRAINING)
        example.use(running, min(minutes * MINUTE, 400.0), cores, memory)
    starting = job("daily-report", JobState.STARTING, age=9)
    example.desk.history.set_phase(starting.id, Phase("python", NOW - 8))
    job("score-batch", JobState.QUEUED, age=40,
        reason="no node accepts it: 4 Insufficient nvidia.com/gpu.")  # fmt: skip
    job("score-batch", JobState.QUEUED, age=6)


SAME_PACKAGES = (
    "joblib==1.5.2", "python-dateutil==2.9.0", "scipy==1.16.3", "six==1.17.0", "threadpoolctl==3.6.0",
)  # fmt: skip
OLD_CODE, NEW_CODE = (
    f"""\
import pandas as pd
from fit.features import add_lags
from sklearn.{module} import {model}

points = add_lags(pd.read_parquet("readings.parquet"))
model = {model}({options})
model.fit(points.drop(columns="load"), points.load)
"""
    for module, model, options in (
        ("linear_model", "Ridge", "alpha=0.1"),
        ("ensemble", "HistGradientBoostingRegressor", "max_iter=300"),
    )
)


def _two_fits(example: Example) -> None:
    """Write two runs with differences of every kind."""
    for age, hit, code, files, packages, results, run in (
        (27 * MINUTE, False, OLD_CODE, {"fit/features.py": 2120, "readings.parquet": 18_400_000},
         ("numpy==2.2.6", "pandas==2.3.3", "pytz==2025.2", "scikit-learn==1.7.2", *SAME_PACKAGES),
         {"scores.csv": b"rmse,4.81\n", "model.joblib": bytes(1_900)}, 12.0),
        (3 * MINUTE, True, NEW_CODE, {"fit/features.py": 2890, "fit/holidays.py": 1340,
         "readings.parquet": 18_400_000},
         ("numpy==2.4.1", "pandas==3.0.0", "scikit-learn==1.8.0", *SAME_PACKAGES),
         {"scores.csv": b"rmse,3.07\n", "model.joblib": bytes(880_000), "residuals.png": bytes(41_000)},
         39.0),
    ):  # fmt: skip
        manifest = make_manifest(
            [ManifestEntry(path, FILE, 0o644, size, digest(f"{path} {size}"))
             for path, size in files.items()]
        )  # fmt: skip
        project = {"root": str(Path.home() / "fit"), "digest": manifest.digest, "files": len(files)}
        job = example.job("fit-model", age=age, hit=hit, run=run, log=FITTED,
                          peak_memory=round(run * 14 * MB),
                          spec={"code": code, "project": project, "env": {"SEED": "7"}})  # fmt: skip
        save_manifest(manifest, {}, job.id)
        kept = next(phase for phase in job.phases if phase.name == "python")
        key = digest(job.id)[:32]
        changed = Phase("python", kept.started_at, kept.seconds, hit, len(packages),
                        len(packages) if hit else 0, kept.bytes, key)  # fmt: skip
        example.desk.history.set_phase(job.id, changed)
        place = ScopeCache(job.backend, "default", "python")
        VolumeIndex(example.desk.history).record_use(place, key, NOW - age, None, packages)
        entries = [
            ResultEntry(name.encode(), EntryKind.FILE, len(data), 0o644, NOW - age,
                        read=partial(iter, [data]))
            for name, data in results.items()
        ]  # fmt: skip
        stored = store_results(job.id, entries, GB, lambda *_: None)
        example.desk.history.set_results(
            job.id, files=len(results), size=stored.bytes, at=NOW - age
        )


_VOLUMES = (
    # Backend, scope, kind, bytes on the first day and added on each day, environments.
    ("argo", "default", "python", 5.1 * GB, 0.34 * GB, 6),
    ("docker", "default", "python", 0.9 * GB, 0.21 * GB, 11),
    ("docker", "default", "system", 0.7 * GB, 0.03 * GB, 2),
    ("docker", "team-a", "python", 0.5 * GB, 0.09 * GB, 4),
    ("local", "default", "python", 0.3 * GB, 0.11 * GB, 7),
)


def _sizes(desk: Desk, chance: random.Random) -> None:
    """Write a measurement of each volume twice a day; each is pruned once a week."""
    for number, (backend, scope, kind, first, added, entries) in enumerate(_VOLUMES):
        size = first
        for half_day in range(2 * DAYS, 0, -1):
            size += added * chance.uniform(0.2, 0.8)
            if (half_day + 3 * number) % 14 == 0:
                size *= 0.62
            at = NOW - half_day * DAY / 2 + 0.4 * DAY
            desk.history.add_cache_size(
                CacheSize(backend, None, scope, kind, at, round(size), entries)
            )


def volumes() -> Iterator[Volume]:
    for backend, scope, kind, *_ in _VOLUMES:
        here = Path.home() / ".cache/stoke/scopes" / scope / kind
        yield Volume(
            backend, scope, kind, str(here) if backend == "local" else f"stoke-{scope}-{kind}"
        )


@contextmanager
def opened() -> Iterator[History]:
    """Write the history, with backends in place that know its jobs and volumes."""
    full = Capabilities(
        images=True, limits=True, system_packages=True, counts_bytes=True, isolation="a container"
    )
    backends = {
        name: FakeBackend(name, PLAIN if name == "local" else full)
        for name in ("local", "docker", "argo")
    }
    for volume in volumes():
        backends[volume.backend].held.append(volume)
    points = [_Point(one) for one in backends.values()]
    history = History()
    desk = Desk(history, backends)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stoke.backend.registry._entry_points", lambda *_: points)
        fill(desk)
        yield history
    desk.let_go()
    history.close()
