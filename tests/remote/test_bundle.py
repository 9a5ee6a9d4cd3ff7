"""The files generated from the modules that run inside jobs."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from stoke.cache.keys import request_keys
from stoke.delivery.payload import make_payload, runner_source
from stoke.remote import bundle
from stoke.request.spec import make_spec
from tests.remote.test_runner_pythons import pythons

FOLDER = Path(bundle.__file__).parent
TRAVELLING = [
    *(
        FOLDER / f"{name}.py"
        for name in ("protocol", "events", "hints", "command", "standalone", "live_output")
    ),
    *sorted(FOLDER.glob("common/*.py")),
    *sorted(FOLDER.glob("runner/*.py")),
    *sorted(FOLDER.glob("housekeeping/*.py")),
]
PROGRAMS = {
    "all": bundle.runner_source(),
    "packages": bundle.runner_source(
        nix=False, project=False, compiled=False, results=False, inputs=False, waits=False
    ),
    "code only": bundle.runner_source(
        packages=False,
        nix=False,
        project=False,
        compiled=False,
        results=False,
        inputs=False,
        waits=False,
    ),
    "project": bundle.runner_source(
        packages=False, nix=False, compiled=False, results=False, inputs=False, waits=False
    ),
    "python": bundle.housekeeping_source("python"),
    "system": bundle.housekeeping_source("system"),
    "results": bundle.housekeeping_source("results"),
    "workspace": bundle.housekeeping_source("workspace"),
    "packing": bundle.packing_source(),
    "script": bundle.bundle("standalone", head="#!/usr/bin/env python3\n\n"),
}


def name_of(path: Path) -> str:
    return ".".join(("stoke.remote", *path.relative_to(FOLDER).with_suffix("").parts))


def modules_in(program: bytes) -> dict[str, str]:
    """Return the modules of a bundle, each with its source."""
    found = {}
    for node in ast.parse(program).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            line, source = ast.literal_eval(node.value)
            assert program.decode().split("\n")[line - 1].startswith("Bundle.sources["), line
            found[ast.literal_eval(node.targets[0].slice)] = source
    return found


def imports_of(tree: ast.Module, *, deep: bool = True) -> set[str]:
    return {
        node.module or ""
        for node in (ast.walk(tree) if deep else tree.body)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("stoke")
    }


@pytest.mark.parametrize("path", TRAVELLING, ids=name_of)
def test_removing_comments_keeps_the_code(path: Path) -> None:
    def code(source: str) -> str:
        tree = ast.parse(source, feature_version=(3, 9))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [  # type: ignore[attr-defined]
                    one
                    for one in body
                    if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))
                    and "TYPE_CHECKING" not in ast.dump(one).partition("body=")[0]
                ]
        return ast.dump(tree)

    source = path.read_text()
    stripped = bundle.without_comments(source)
    assert code(stripped) == code(source)
    assert not any(line.lstrip().startswith("#") for line in stripped.splitlines())


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_imports_only_its_own_modules_and_the_standard_library(program: str) -> None:
    modules = modules_in(PROGRAMS[program])
    assert len(modules) > 5
    for name, source in modules.items():
        tree = ast.parse(source, feature_version=(3, 9))
        top_level = imports_of(tree, deep=False)
        assert top_level <= modules.keys(), name
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert imported <= sys.stdlib_module_names, name


def test_all_parts_together_bring_every_module() -> None:
    brought = {name for program in PROGRAMS.values() for name in modules_in(program)}
    inside = {name_of(path) for path in TRAVELLING if path.parent != FOLDER}
    assert {name for name in inside if not name.endswith("__init__")} <= brought
    # The whole program has modules that are imported late, because few jobs need them.
    for program in ("all", "python", "system"):
        modules = modules_in(PROGRAMS[program])
        for name, source in modules.items():
            missing = imports_of(ast.parse(source)) - modules.keys()
            other = "system" if program == "python" else "python"
            others = {f"{other}_volume", "workspace_volume", "results"}
            assert missing <= {f"stoke.remote.housekeeping.{one}" for one in others}, name


def test_the_same_modules_give_the_same_bytes() -> None:
    code = "import sys; from stoke.remote.bundle import runner_source as source\n"
    code += "sys.stdout.buffer.write(source())"
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        )
        assert done.stdout == PROGRAMS["all"]


@pytest.mark.parametrize("python", pythons())
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_module_can_be_imported(program: str, python: str, tmp_path: Path) -> None:
    """Include the modules that a job imports only when it needs them."""
    path = tmp_path / "runner.py"
    path.write_bytes(PROGRAMS[program])
    code = (
        "import sys; sys.argv = sys.argv[1:]\n"
        "program = {'__name__': 'program'}\n"
        "exec(open(sys.argv[0]).read(), program)\n"
        "modules = program['Bundle'].sources\n"
        "for name in sorted(modules): __import__(name)\n"
        "print(len(modules))\n"
    )
    command = [python, "-I", "-S", "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) == len(modules_in(PROGRAMS[program]))


def test_a_traceback_shows_the_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runner.py"
    path.write_bytes(PROGRAMS["code only"])
    command = [sys.executable, "-I", "-S", str(path), "/not/there", "--work", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'with open(path, "rb") as file:' in done.stderr
    assert done.stderr.count(f'File "{path}"') == done.stderr.count("File ")


def test_a_job_brings_the_parts_that_it_can_need() -> None:
    def sizes(follows: bool = False, **fields: object) -> int:
        return len(runner_source(make_spec({"code": "pass", **fields}), follows))

    plain, packages, system = sizes(), sizes(dependencies=["six"]), sizes(system=["hello"])
    assert plain == len(PROGRAMS["code only"])
    assert packages == sizes(python="3.12") == len(PROGRAMS["packages"])
    project = {"digest": "0" * 64, "root": "/project"}
    assert sizes(project=project) == len(PROGRAMS["project"])
    compiled = {**project, "compiled": [[".", "src"]]}
    everything = sizes(
        follows=True,
        system=["hello"],
        dependencies=["six"],
        project=compiled,
        results=["*.csv"],
        hold=60,
    )
    assert plain < system < everything == len(PROGRAMS["all"])


def test_a_payload_of_another_version_is_refused(tmp_path: Path) -> None:
    spec = make_spec({"code": "print('no')"})
    packed = make_payload(
        spec, request_keys(spec), nonce="n", program="main.py", lock_ttl=0, upgrade=False
    )
    payload = {**json.loads(gzip.decompress(packed)), "version": 0}
    (tmp_path / "payload").write_bytes(gzip.compress(json.dumps(payload).encode()))
    (tmp_path / "runner.py").write_bytes(PROGRAMS["code only"])
    command = [sys.executable, "-I", "-S", f"{tmp_path}/runner.py", f"{tmp_path}/payload"]
    done = subprocess.run([*command, "--work", f"{tmp_path}/work"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (125, "")
    assert "reads payloads of version 1, and this one has version 0" in done.stderr
