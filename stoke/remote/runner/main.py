"""The program that runs inside every job, on the job's own Python (3.9 or later).

    python3 -I -S runner.py PAYLOAD --work DIR [--cache DIR] [--uv PATH] [--container] [--nix]
                            [--own-files] [--tagged] [--keep-copy] [--pack PATH] [--workspace DIR]
                            [--results DIR] [--inputs PATH]

PAYLOAD is a file with gzip of the JSON of `stoke.remote.schema.Payload`. It may hold secrets, so it is
deleted once it is read. `stoke.remote.protocol.RunnerOption` explains the options.

Reports events on stderr (`stoke.remote.events`). The exit code is that of the user's code, 128 + n for
a signal, 124 for the timeout, 125 if the environment failed before the code began.
"""

from __future__ import annotations

import json
import os
import sys
import zlib

from stoke.remote.common.trees import remove_tree
from stoke.remote.protocol import EXIT_ENVIRONMENT, PAYLOAD_VERSION, EventKind, RunnerOption
from stoke.remote.runner.clock import now
from stoke.remote.runner.interpreter import fingerprint
from stoke.remote.runner.job import RemoteJob
from stoke.remote.runner.job_folders import release_checkpoint
from stoke.remote.runner.phases import Phases

TYPE_CHECKING = False
if TYPE_CHECKING:
    from stoke.remote.schema import Payload


def main(arguments: list[str]) -> int:
    if arguments == ["--fingerprint"]:
        print(json.dumps(fingerprint()))
        return 0
    options = _options(arguments[1:])
    payload = _read_payload(arguments[0])
    version = payload.get("version")
    if version != PAYLOAD_VERSION:
        text = "error: this runner reads payloads of version %d, and this one has version %s\n"
        sys.stderr.write(text % (PAYLOAD_VERSION, version))
        return EXIT_ENVIRONMENT
    os.makedirs(options[RunnerOption.WORK], exist_ok=True)
    job = RemoteJob(payload, options)
    job.termination.install(payload["timeout"])
    try:
        code, facts = Phases(job).run()
    except Exception as error:
        text = job.events.shortened("the runner failed: %s: %s" % (type(error).__name__, error))
        job.events.emit(EventKind.ERROR, phase="run", text=text, hint=None)
        code, facts = EXIT_ENVIRONMENT, {"reason": text[:300]}
    release_checkpoint(job)
    hold = payload["hold"] if job.began and code else None
    if facts.get("reason") in ("stopped", "interrupted"):
        hold = None
    if hold is None:
        _clean_up(job)
        job.events.emit(EventKind.END, time=now(), exit_code=code, **facts)
        return code
    from stoke.remote.runner.waiting import hold_job

    job.events.emit(EventKind.END, time=now(), exit_code=code, held=hold, **facts)
    hold_job(job, hold)
    _clean_up(job)
    return code


def _clean_up(job: RemoteJob) -> None:
    remove_tree(job.private_cache)
    if job.copy is not None:
        job.copy.leave()


def _options(words: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        options[word] = "" if word in RunnerOption.FLAGS else next(rest)
    return options


def _read_payload(path: str) -> Payload:
    with open(path, "rb") as file:
        payload: Payload = json.loads(zlib.decompress(file.read(), 31))  # 31: a gzip header
    os.unlink(path)
    return payload
