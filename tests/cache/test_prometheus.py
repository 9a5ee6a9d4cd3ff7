"""The text for Prometheus, held against the grammar of its exposition format."""

from __future__ import annotations

import re

from stoke.cache.metrics import CacheFigures, Metrics, PredictionFigures
from stoke.cache.prometheus import MOST_PACKAGES, exposition
from stoke.history.cache_runs import PackageUse
from stoke.history.database import CacheSize

HELP = re.compile(r"# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) (?:[^\\\n]|\\\\|\\n)*")
TYPE = re.compile(r"# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) gauge")
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\\\|\\"|\\n)*"'
SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{{({LABEL}(?:,{LABEL})*)\}})? (\S+)")

EMPTY = Metrics(None, (), {}, (), (), PredictionFigures(0, 0, None))


def parsed(text: str) -> dict[str, list[tuple[str, float]]]:
    """{metric: [(labels as written, value)]}; fails on text that the format forbids."""
    assert text.endswith("\n")
    found: dict[str, list[tuple[str, float]]] = {}
    lines = iter(text.removesuffix("\n").split("\n"))
    name = ""
    for line in lines:
        if line.startswith("#"):
            about, typed = HELP.fullmatch(line), TYPE.fullmatch(next(lines))
            assert about and typed, line
            assert about[1] == typed[1], line
            # A metric has one group of samples.
            assert about[1] not in found, line
            name = typed[1]
            # Such a name promises a counter, and the figures can fall.
            assert not name.endswith("_total")
            found[name] = []
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == name
        found[name].append((sample[2] or "", float(sample[3])))
    for samples in found.values():
        assert len({labels for labels, _ in samples}) == len(samples) > 0
    return found


def test_every_figure_has_its_sample() -> None:
    one = CacheFigures("docker", "team", "python", 4, 3, 0.75, 9.5, 0.001, 27.5, 1_000_000)
    size = CacheSize("docker", "node-1", "team", "python", 1_700_000_000.5, 5, 2)
    metrics = Metrics(
        None,
        (one,),
        {},
        (size,),
        (PackageUse("numpy", "python", 4),),
        PredictionFigures(4, 3, 0.75),
    )
    place = 'backend="docker",scope="team",kind="python"'
    there = 'backend="docker",node="node-1",scope="team",kind="python"'
    assert parsed(exposition(metrics)) == {
        "stoke_cache_jobs": [(place, 4)],
        "stoke_cache_hits": [(place, 3)],
        "stoke_cache_saved_seconds": [(place, 27.5)],
        "stoke_cache_saved_bytes": [(place, 1_000_000)],
        "stoke_cache_cold_seconds": [(place, 9.5)],
        "stoke_cache_warm_seconds": [(place, 0.001)],
        "stoke_cache_size_bytes": [(there, 5)],
        "stoke_cache_environments": [(there, 2)],
        "stoke_cache_measured_timestamp_seconds": [(there, 1_700_000_000.5)],
        "stoke_package_jobs": [('package="numpy",kind="python"', 4)],
        "stoke_predictions": [("", 4)],
        "stoke_predictions_right": [("", 3)],
    }


def test_unknown_has_no_sample() -> None:
    one = CacheFigures("local", "default", "python", 1, 1, 1.0, None, 0.001, None, None)
    found = parsed(exposition(Metrics(None, (one,), {}, (), (), PredictionFigures(0, 0, None))))
    assert "stoke_cache_cold_seconds" not in found
    assert "stoke_cache_saved_seconds" not in found
    assert set(parsed(exposition(EMPTY))) == {
        "stoke_predictions",
        "stoke_predictions_right",
    }


def test_hostile_names_stay_inside_their_label() -> None:
    """A history that another program wrote: scopes and packages are any text."""
    nasty = 'a"} 1\nstoke_evil 2\\'
    one = CacheFigures("\x1b[2J", nasty, "python", 1, 0, 0.0, 1.0, None, None, None)
    packages = tuple(PackageUse(f"{nasty}{number}", "python", 1) for number in range(200))
    text = exposition(Metrics(None, (one,), {}, (), packages, PredictionFigures(0, 0, None)))
    found = parsed(text)
    assert "\x1b" not in text
    assert "stoke_evil" not in found
    assert len(found["stoke_package_jobs"]) == MOST_PACKAGES
