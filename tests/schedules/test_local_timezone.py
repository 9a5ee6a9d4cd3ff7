"""The timezone of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from stoke.schedules import local_timezone


def test_the_machine_names_its_timezone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = tmp_path / "zoneinfo/Asia/Tokyo"
    zone.parent.mkdir(parents=True)
    zone.touch()
    link = tmp_path / "localtime"
    monkeypatch.setattr(local_timezone, "LOCALTIME", link)
    for given_zone, expected in ((":Europe/Berlin", "Europe/Berlin"), ("", "UTC"), (None, "UTC")):
        if given_zone is None:
            monkeypatch.delenv("TZ")
        else:
            monkeypatch.setenv("TZ", given_zone)
        assert local_timezone.local_timezone() == expected
    link.symlink_to(zone)
    assert local_timezone.local_timezone() == "Asia/Tokyo"
