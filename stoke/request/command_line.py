"""The commands that do what a screen does: a spec as a `stoke run` line."""

from __future__ import annotations

import shlex

from stoke.request.spec import JobSpec
from stoke.text.sanitize import MASK, looks_secret


def run_command(spec: JobSpec, backend: str, name: str) -> str:
    """The line to type. Code is read from standard input; values that look secret are masked."""
    words = ["stoke", "run", "-b", backend, "--name", name]
    for requirement in spec.dependencies:
        words += ["-w", requirement]
    if spec.requirements or spec.constraints:
        # A file whose text the request holds; constraints are in one that it names by -c.
        words += ["--lock" if spec.locked else "-r", "requirements.txt"]
    for package in spec.system:
        words += ["-s", package]
    options = {
        "--python": spec.python,
        "--image": spec.image,
        "--scope": None if spec.scope == "default" else spec.scope,
        "--timeout": None if spec.timeout is None else f"{spec.timeout:g}s",
        "--cpu": None if spec.cpu is None else f"{spec.cpu:g}",
        "--memory": None if spec.memory is None else str(spec.memory),
        "--shm-size": None if spec.shm_size is None else str(spec.shm_size),
    }
    for option, value in options.items():
        if value is not None:
            words += [option, value]
    for variable, value in spec.env.items():
        words += ["--env", f"{variable}={MASK if looks_secret(variable) else value}"]
    for variable, reference in spec.secrets.items():
        words += ["--secret", f"{variable}={reference}"]
    if not spec.use_cache:
        words.append("--no-cache")
    words.append("-")
    if spec.args:
        words += ["--", *spec.args]
    return shlex.join(words)
