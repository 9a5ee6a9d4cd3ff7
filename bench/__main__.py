"""Run the benchmarks named on the command line, or all of them."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile

TOP = os.getcwd()
ALL = (
    "startup",
    "screens_start",
    "run_trivial",
    "project_run",
    "local_warm",
    "project_job",
    "project_snapshot",
    "worker_output",
    "live_usage",
    "docker_warm",
    "shell",
    "docker_cold",
    "ten_jobs",
    "sweep",
    "workspaces",
    "log_tail",
    "log_many",
    "environments_warm",
    "system_warm",
    "cache_usage",
    "prune_under_load",
    "log_window",
    "jobs_list",
    "log_link",
    "live_jobs",
    "day",
    "results",
    "api",
    "argo_list",
    "argo_log",
    "argo_times",
    "argo_results",
)


def main() -> None:
    for name in sys.argv[1:] or ALL:
        if name not in ALL:
            sys.exit(f"no benchmark is called {name}; there are: {', '.join(ALL)}")
        module = importlib.import_module(f"bench.{name}")
        # In this repository, `stoke run` would send it as a project.
        with tempfile.TemporaryDirectory() as empty:
            os.chdir(empty)
            module.main()
            os.chdir(TOP)


if __name__ == "__main__":
    main()
