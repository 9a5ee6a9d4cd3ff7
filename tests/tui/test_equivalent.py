"""The command line that the screens show for a request: `stoke run` reads it as that request."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

from stoke.cli.commands.run import command
from stoke.request.command_line import run_command
from stoke.request.spec import make_spec


@pytest.mark.parametrize("args", [[], ["one"], ["--name", "first", "-c", "x"], ["--", "-b"]])
def test_stoke_run_takes_the_line(args: list[str]) -> None:
    fields: dict[str, Any] = {
        "dependencies": ["numpy>=2", "six"],
        "requirements": "attrs\n",
        "system": ["gcc"],
        "env": {"MODE": "fast"},
        "memory": "1g",
        "shm_size": "2g",
        "timeout": "90s",
        "use_cache": False,
    }
    spec = make_spec({"code": "print(1)", "args": args, **fields})
    line = run_command(spec, "docker", "fit")
    found = command.make_context("run", shlex.split(line)[2:]).params
    assert found["words"] == ("-", *args)
    assert (found["backend"], found["name"], found["no_cache"]) == ("docker", "fit", True)
    assert found["packages"] == ("numpy>=2", "six")
    assert (found["requirements"], found["lock"]) == (("requirements.txt",), None)
    assert (found["system"], found["env"]) == (("gcc",), ("MODE=fast",))
    assert (found["memory"], found["shm_size"]) == (str(1 << 30), str(2 << 30))
