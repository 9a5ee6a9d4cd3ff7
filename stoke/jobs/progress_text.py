"""What a phase is doing, in words, from the progress that its runner reports."""

from __future__ import annotations

from stoke.remote.events import Event
from stoke.remote.protocol import ProgressStage
from stoke.text.units import human_bytes, human_seconds


def progress_text(event: Event) -> str:
    """Return `fetching 41 packages: 120 MiB of 840 MiB, about 12 s left, torch, numpy`."""
    packages = f"{event['packages']} package{'' if event['packages'] == 1 else 's'}"
    names = ", ".join(event["left"])
    if event["stage"] == ProgressStage.INSTALL:
        return f"installing {packages}"
    if event["stage"] == ProgressStage.BUILD:
        more = event["packages"] - len(event["left"])
        return f"building {names}" + (f" and {more} more" if more > 0 else "")
    parts = []
    if event.get("total"):
        parts.append(f"{human_bytes(event.get('bytes') or 0)} of {human_bytes(event['total'])}")
    if event.get("seconds"):
        parts.append(f"about {human_seconds(event['seconds'])} left")
    if names:
        parts.append(names)
    return f"fetching {packages}" + (f": {', '.join(parts)}" if parts else "")
