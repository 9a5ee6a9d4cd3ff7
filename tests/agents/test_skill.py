"""`stoke setup agent`, and `stoke mcp` where its package is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import metadata

import yaml  # type: ignore[import-untyped]

from stoke.cli.commands.run import _exit_codes
from tests.hints import filled
from tests.terminals import PROGRAM


def printed() -> str:
    done = subprocess.run([PROGRAM, "setup", "agent"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_skill_file_has_front_matter_and_valid_registration() -> None:
    _, front, body = printed().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert set(fields) == {"name", "description"} and fields["name"] == "stoke"
    assert len(fields["description"]) <= 1024
    assert len(body.splitlines()) < 150, "it is read at the begin of every task"
    (registration,) = re.findall(r"```json\n(.*?)```", body, re.DOTALL)
    server = json.loads(registration)["mcpServers"]["stoke"]
    assert server == {"command": "stoke", "args": ["mcp"]}


def test_the_skill_file_has_every_exit_code() -> None:
    body = printed()
    for code in re.findall(r"^  (\d+)", _exit_codes(), re.MULTILINE):
        assert f"| {code} |" in body


def test_without_the_extra_the_command_names_it() -> None:
    """A stand-in for an installation without the package: its import fails."""
    code = (
        "import sys; sys.modules['mcp'] = None; sys.argv = ['stoke', 'mcp']\n"
        "from stoke.cli.main import main\nsys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (125, "")
    hint = done.stderr.partition("hint: ")[2].strip()
    filled(
        hint,
        "install the extra: pip install 'stoke-tui[mcp]', or from a checkout: uv tool install '.[mcp]'",
    )
    assert "mcp" in (metadata("stoke-tui").get_all("Provides-Extra") or [])


def test_help_loads_no_sdk() -> None:
    code = (
        "import sys; sys.argv = ['stoke', 'mcp', '--help']\n"
        "from stoke.cli.main import main\nmain()\nassert 'mcp' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "--read-only" in done.stdout
