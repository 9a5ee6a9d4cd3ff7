"""A shell in a container, from the command to its prompt: `stoke shell`, warm, and `docker run -it`.

The prompt is there once a line typed before it is answered: both sides are typed the same line.
"""

from __future__ import annotations

import os
import pty
import secrets
import select
import subprocess
import sys
import time

from bench.docker import IMAGE, docker_home
from bench.measure import STOKE, pairs, report, seconds

PATIENCE = 60.0
RUNS = 15
LIBRARIES = "import click, docker, pydantic, sqlite3"


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
        client = min(seconds([sys.executable, "-c", LIBRARIES]) for _ in range(RUNS))
    print(
        f"shell: a program that only loads the libraries of stoke takes {client:.3f} s, and with "
        f"docker run after it {(client + other) / other:.2f} x",
        flush=True,
    )


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
    taken = time.monotonic() - began
    os.write(terminal, b"exit\n")
    # Its output has to be read, or it never ends.
    while process.poll() is None:
        if select.select([terminal], [], [], 0.01)[0]:
            try:
                os.read(terminal, 1 << 16)
            except OSError:  # Linux's answer once the other side is closed.
                process.wait(PATIENCE)
    os.close(terminal)
    return taken


if __name__ == "__main__":
    main()
