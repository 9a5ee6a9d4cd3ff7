"""A shell in a container, from the command to its prompt: `stoke shell`, warm, and `docker run -it`.

The prompt is there once a line typed before it is answered: both sides are typed the same line.
"""

from __future__ import annotations

import os
import pty
import secrets
import select
import subprocess
import time

from bench.docker import IMAGE, docker_home
from bench.measure import STOKE, pairs, report

PATIENCE = 60.0
RUNS = 15


def main() -> None:
    with docker_home() as (env, scope):
        ours = [
            STOKE,
            "shell",
            "-q",
            "-b",
            "docker",
            "--image",
            IMAGE,
            "--scope",
            scope,
            "--no-folder",
        ]
        theirs = ["docker", "run", "--rm", "-it", IMAGE, "bash"]
        mine, other, ratio = pairs(
            lambda: until_prompt([*ours, "-w", "six"], env), lambda: until_prompt(theirs, env), RUNS
        )
        report("shell, warm, to its prompt: stoke shell, docker run -it", mine, other, ratio, 1.2)


def until_prompt(command: list[str], env: dict[str, str]) -> float:
    """Return the seconds until the shell has answered its first line."""
    word = secrets.token_hex(4)
    terminal, theirs = pty.openpty()
    began = time.monotonic()
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        env={**env, "TERM": "xterm"},
    )
    os.close(theirs)
    # The echo of the line has the quotes, the answer has not.
    os.write(terminal, f"echo {word[:4]}''{word[4:]}\n".encode())
    screen = b""
    while word.encode() not in screen:
        if not select.select([terminal], [], [], PATIENCE)[0]:
            raise TimeoutError(f"{command[0]} shows no prompt: {screen!r}")
        screen += os.read(terminal, 1 << 16)
    seconds = time.monotonic() - began
    os.write(terminal, b"exit\n")
    # Its output has to be read, or it never ends.
    while process.poll() is None:
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                os.read(terminal, 1 << 16)
            except OSError:  # Linux's answer once the other side is closed.
                process.wait(PATIENCE)
    os.close(terminal)
    return seconds


if __name__ == "__main__":
    main()
