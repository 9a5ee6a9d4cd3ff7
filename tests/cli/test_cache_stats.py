"""`stoke cache stats`: what the caches did, for people, programs and Prometheus."""

from __future__ import annotations

import json

from tests.cli.conftest import Stoke
from tests.package_index import PackageIndex


def test_figures_of_real_jobs(stoke: Stoke, index: PackageIndex) -> None:
    nothing = stoke("cache", "stats")
    assert (nothing.returncode, nothing.stdout) == (0, b"")
    assert b"no job" in nothing.stderr

    for _ in range(2):
        assert stoke("run", "-q", "-c", "pass", "-w", "beta").returncode == 0
    assert stoke("run", "-q", "-c", "pass", "-w", "alpha", "--scope", "team").returncode == 0

    document = json.loads(stoke("cache", "stats", "--json").stdout)
    ours, team = document["caches"]
    assert (ours["scope"], ours["jobs"], ours["hits"], ours["hit_rate"]) == ("default", 2, 1, 0.5)
    assert ours["cold_seconds"] > ours["warm_seconds"] > 0
    assert 0 < ours["saved_seconds"] < ours["cold_seconds"]
    assert ours["saved_bytes"] is None  # this machine's network is not the job's own
    assert sum(point["jobs"] for point in ours["over_time"]) == 2
    assert (team["scope"], team["hit_rate"], team["saved_seconds"]) == ("team", 0.0, None)
    assert document["packages"] == [
        {"name": "beta", "kind": "python", "uses": 2},
        {"name": "alpha", "kind": "python", "uses": 1},
    ]
    assert document["prediction"] == {"judged": 3, "right": 3, "rate": 1.0, "exact": 3}

    only = json.loads(stoke("cache", "stats", "--scope", "team", "--since", "1h", "--json").stdout)
    assert [one["scope"] for one in only["caches"]] == ["team"]
    assert [one["name"] for one in only["packages"]] == ["alpha"]

    table = stoke("cache", "stats").stdout.decode()
    assert "50%" in table and "3 of 3 right" in table and "beta" in table

    text = stoke("cache", "stats", "--prometheus").stdout.decode()
    assert 'stoke_cache_hits{backend="local",scope="default",kind="python"} 1\n' in text
    assert 'stoke_package_jobs{package="beta",kind="python"} 2\n' in text


def test_wrong_options_are_reported(stoke: Stoke) -> None:
    when = stoke("cache", "stats", "--since", "yesterday")
    assert when.returncode == 2
    assert b"since" in when.stderr and b"yesterday" in when.stderr
    both = stoke("cache", "stats", "--prometheus", "--since", "1h")
    assert both.returncode == 2
