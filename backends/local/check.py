"""The checks of `stoke doctor` for this machine."""

from __future__ import annotations

import os
import sys

from uv import find_uv_bin

from backends.local.gpus import list_gpus
from stoke.backend.api import CheckResult
from stoke.config.model import LocalConfig
from stoke.errors import EngineError
from stoke.files.paths import cache_dir, make_private, state_dir


def check_machine(python: str, local: LocalConfig) -> list[CheckResult]:
    results = [CheckResult("python", True, f"{python} ({sys.version.split()[0]})")]
    try:
        results.append(CheckResult("uv", True, find_uv_bin()))
    except FileNotFoundError as error:
        results.append(
            CheckResult("uv", False, str(error), "reinstall stoke: its uv package is damaged")
        )
    for what, folder, variable in (
        ("state", state_dir(), "STOKE_STATE_DIR"),
        ("caches", cache_dir(), "STOKE_CACHE_DIR"),
    ):
        try:
            make_private(folder)
            works = os.access(folder, os.W_OK)
            detail = str(folder) if works else f"{folder} is not writable"
        except EngineError as error:
            works, detail = False, error.what
        hint = None if works else f"export {variable}=/some/folder"
        results.append(CheckResult(what, works, detail, hint))
    count = len(list_gpus(local))
    results.append(CheckResult("gpus", True, f"{count}, for jobs that ask with --gpu"))
    return results
