"""One follower in a process of its own, for `bench.log_tail`: follows a container into a spool.

    python -m bench.log_follow SOCKET CONTAINER FOLDER

Prints one line of JSON: lines, gaps, and by how many MB the program grew while it followed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from stoke.backend.registry import load_backend
from stoke.config.model import Config, DockerConfig
from stoke.logs import follower as module
from stoke.logs.follower import Follower


def main() -> None:
    host, container, folder = sys.argv[1:]
    # Cuts are part of this benchmark; the pause after each is not to be measured.
    module.BACKOFF_SECONDS = (0.01, 0.01)
    backend = load_backend("docker", Config(docker=DockerConfig(host=host)))
    backend.inspect(container)
    # The peak so far may be the parent's; from here on it is our own.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak()
    # No nonce: the log has no runner's events.
    follower = Follower(
        backend, container, "", Path(folder), lambda _: None, lambda: None, lambda _: None
    )
    print("ready", flush=True)
    state = follower.run()
    grown = _peak() - before
    assert state is not None and state.exit_code == 0, state
    figures = {"lines": follower.spool.lines, "gaps": follower.spool.gaps, "grown": grown / 1000}
    print(json.dumps(figures), flush=True)


def _peak() -> int:
    """Return the peak memory of this process in kB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


if __name__ == "__main__":
    main()
