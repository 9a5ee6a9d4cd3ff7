"""The recordings of earlier races on this machine, in the state folder."""

from __future__ import annotations

from stoke.errors import EngineError, RequestError
from stoke.files.atomic import write_atomically
from stoke.files.paths import make_private, state_dir
from stoke.race.recording import Recording, read_recording

MOST_RACES = 50
"""Races that are kept; the oldest are removed."""
_FOLDER = "races"


def keep(recording: Recording) -> None:
    """Add a recording of a race that has just ended. Raises `EngineError` if that fails."""
    folder = make_private(state_dir() / _FOLDER)
    path = folder / f"{round(recording.raced_at * 1000):015d}-{recording.warm.job}.json"
    try:
        write_atomically(path, recording.model_dump_json())
        for old in sorted(folder.glob("*.json"))[:-MOST_RACES]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(f"cannot write {path}: {error.strerror}") from error


def earlier_races() -> list[Recording]:
    """Return the readable recordings, newest first."""
    found = []
    for path in sorted((state_dir() / _FOLDER).glob("*.json"), reverse=True):
        try:
            found.append(read_recording(path))
        except RequestError:
            continue
    return found
