"""The wheel: built, installed where no checkout is near, and used as a user would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from uv import find_uv_bin

from tests.hints import command, is_hint
from tests.terminals import Terminal

TOP = Path(__file__).parent.parent
PACKAGES = ("stoke", "backends", "tui", "styles")
LOCK = TOP / "requirements/run.txt"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by the locked hatchling, without build isolation and so without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(words, cwd=TOP, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_everything_of_the_packages_is_in_it_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
        entries = archive.read(f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/entry_points.txt")
    wanted = {
        str(path.relative_to(TOP))
        for package in PACKAGES
        for path in (TOP / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == wanted
    for name in (
        "stoke/remote/runner/main.py", "stoke/remote/uv_wheels.json",
        "backends/docker/Dockerfile", "styles/base.tcss",
    ):  # fmt: skip
        assert name in inside
    assert b"stoke = stoke.cli.main:program" in entries


def uv(*arguments: str, **env: str) -> None:
    """From uv's own cache where that has everything, which a second run needs no index for."""
    first = [find_uv_bin(), *arguments, "--quiet"]
    environ = {**os.environ, "UV_SYSTEM_CERTS": "true", **env}
    if subprocess.run([*first, "--offline"], env=environ, capture_output=True).returncode:
        subprocess.run(first, env=environ, check=True)


def by_pip(wheel: Path, folder: Path) -> Path:
    """Into a fresh environment, with the locked requirements."""
    uv("venv", "--python", sys.executable, str(folder / "env"))
    python = str(folder / "env/bin/python")
    uv("pip", "install", "--python", python, "--require-hashes", "-r", str(LOCK))
    uv("pip", "install", "--python", python, "--no-deps", str(wheel))
    return folder / "env/bin/stoke"


def by_uv_tool(wheel: Path, folder: Path) -> Path:
    places = {"UV_TOOL_DIR": str(folder / "tools"), "UV_TOOL_BIN_DIR": str(folder / "bin")}
    words = ["--python", sys.executable, "--constraints", str(LOCK), str(wheel)]
    uv("tool", "install", *words, **places)
    return folder / "bin/stoke"


@pytest.fixture(scope="module", params=[by_pip, by_uv_tool])
def installed(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The command of an installation that has never seen the checkout."""
    install: Callable[[Path, Path], Path] = request.param
    return install(wheel, tmp_path_factory.mktemp("installed"))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder, and a PYTHONPATH, full of modules that are called like ours."""
    folder, foreign = tmp_path / "elsewhere", tmp_path / "foreign"
    hostile = "raise SystemExit('a foreign module was imported')\n"
    for name in ("tui", "backends", "styles"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text(hostile)
    folder.mkdir()
    for name in (*PACKAGES, "uv", "click"):
        (folder / f"{name}.py").write_text(hostile)
    monkeypatch.setenv("PYTHONPATH", str(foreign))
    monkeypatch.chdir(folder)
    return folder


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=280)


@pytest.mark.network
@pytest.mark.usefixtures("elsewhere")
def test_the_installed_command_runs_the_demos_job_and_finds_it_again(
    installed: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_bytes((TOP / "examples/numpy_pi.py").read_bytes())
    cold = run(installed, "run", "-b", "local", str(job))
    assert cold.returncode == 0, cold.stderr
    assert "pi is about 3.1" in cold.stdout
    warm = run(installed, "run", "-b", "local", "-w", "numpy", "-c", "import numpy; print('again')")
    assert (warm.returncode, warm.stdout) == (0, "again\n"), warm.stderr
    listed = run(installed, "jobs", "--all")
    assert listed.returncode == 0 and "job" in listed.stdout


@pytest.mark.network
@pytest.mark.usefixtures("elsewhere")
def test_a_damaged_uv_is_reported_until_it_is_reinstalled(installed: Path) -> None:
    python = installed.resolve().with_name("python")
    python.with_name("uv").unlink()
    broken = run(installed, "doctor", "--json")
    assert broken.returncode == 1
    (found,) = [one for one in json.loads(broken.stdout)["backends"]["local"] if not one["works"]]
    assert found["what"] == "uv"
    is_hint(found["hint"], "reinstall stoke: its uv package is damaged")
    again = ("--reinstall-package", "uv", "--require-hashes", "-r", str(LOCK))
    uv("pip", "install", "--python", str(python), *again)
    assert run(installed, "doctor").returncode == 0


@pytest.mark.network
@pytest.mark.usefixtures("elsewhere")
def test_the_installed_command_helps_and_looks_after_itself(installed: Path) -> None:
    assert "Usage: stoke" in run(installed, "--help").stdout
    doctor = run(installed, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    # What ran is what was installed.
    assert str(TOP) not in doctor.stdout


@pytest.mark.network
def test_the_installed_screens_open(installed: Path, elsewhere: Path) -> None:
    screen = Terminal(program=str(installed))
    try:
        screen.until(b"stoke runs Python somewhere else")
        shown = len(screen.screen)
        screen.type("q")  # Leaves the greeting of the first start.
        screen.until(b"run in a shell", shown)  # The empty list, below the greeting.
        screen.type("q")
        assert screen.wait() == 0
    finally:
        screen.close()
    assert b"Traceback" not in screen.screen


PREVIEW = """
import sys
from pathlib import Path
from tui.jobs.result_preview import read_preview
preview = read_preview(Path(sys.argv[1]))
print(preview.note if preview.picture is None else "shown")
"""


@pytest.mark.network
def test_a_picture_names_the_extra_that_shows_it(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = tmp_path / "plot.png"
    Image.new("RGB", (300, 20)).save(picture)
    program = by_uv_tool(wheel, tmp_path)
    look = (program.resolve().with_name("python"), "-P", "-c", PREVIEW, str(picture))
    told = subprocess.run(look, capture_output=True, text=True, check=True).stdout
    assert told.startswith("PNG, 300 x 20, "), told
    hint = is_hint(told.strip().rpartition(" (")[2].rstrip(")"), "uv tool install '.[{}]'")
    monkeypatch.chdir(TOP)
    places = {"UV_TOOL_DIR": str(tmp_path / "tools"), "UV_TOOL_BIN_DIR": str(tmp_path / "bin")}
    uv(*command(hint, "uv"), "--python", sys.executable, **places)
    assert subprocess.run(look, capture_output=True, text=True, check=True).stdout == "shown\n"
