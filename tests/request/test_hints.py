"""Hints about requests and the files they name, followed until the request is taken."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from stoke.backend.registry import load_backend
from stoke.config.defaults import with_changes
from stoke.config.model import Config
from stoke.jobs.prepare import check_request
from stoke.logs.reader import Span, moment
from stoke.race.race import check_race
from stoke.request.input_files import decode_requirements
from stoke.request.notebook import notebook_to_script
from stoke.request.requirements_files import check_lockfile, read_requirements
from stoke.request.sources import read_code, request_from_json, request_from_options
from stoke.request.surroundings import take_in
from stoke.request.variables import fill_in
from tests.hints import command, exported, filled, refused
from tests.package_index import PackageIndex


def local() -> Any:
    return load_backend("local", Config())


@pytest.mark.parametrize(
    ("fields", "template"),
    [
        (
            {"system": ["tree"]},
            "remove them, or choose a backend that has them: -b docker",
        ),
        ({"image": "python:3.13"}, "choose one that does: -b docker"),
        ({"memory": 1 << 30}, "choose a backend that does: -b docker"),
        ({"cpu": 1}, "choose a backend that does: -b docker"),
        ({"shm_size": 1 << 30}, "choose a backend that does: -b docker"),
        (
            {"cpu_request": 1},
            "set limits instead: --cpu, --memory; or run on a cluster: -b argo",
        ),
        ({"profile": "gpu"}, "leave it out, or run on a cluster: -b argo"),
        ({"annotations": {"a": "b"}}, "leave it out, or run on a cluster: -b argo"),
        ({"labels": {"a": "b"}}, "leave them out, or choose: -b docker"),
    ],
)
def test_another_backend_takes_the_request(fields: dict[str, Any], template: str) -> None:
    spec = request_from_options(code="1", **fields)
    said = refused(lambda: check_request(spec, local()), template)
    option, name = shlex.split(said.rpartition(": ")[2])
    assert option == "-b"
    check_request(spec, load_backend(name, Config()))
    # The other way: without them.
    check_request(request_from_options(code="1"), local())


def test_a_secret_is_read_here() -> None:
    spec = request_from_options(code="1", secrets={"TOKEN": "secret:login/key"})
    said = refused(lambda: check_request(spec, local()), "have it read here: --secret {}=env:{}")
    name, _, reference = shlex.split(said)[-1].partition("=")
    check_request(request_from_options(code="1", secrets={name: reference}), local())


def test_a_race_with_a_cache_and_packages() -> None:
    uncached = request_from_options(code="1", dependencies=["alpha"], use_cache=False)
    refused(lambda: check_race(uncached, local()), "have it use the cache")
    check_race(with_changes(uncached, use_cache=True), local())
    empty = request_from_options(code="1")
    said = refused(lambda: check_race(empty, local()), "name some, for example numpy")
    name = said.rpartition(" ")[2]
    check_race(request_from_options(code="1", dependencies=[name]), local())


# --- files ---------------------------------------------------------------------------------------


def shell(line: str, folder: Path, **more: str) -> None:
    uv = str(Path(find_uv_bin()).parent)
    path = f"{Path(sys.executable).parent}:{uv}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "UV_OFFLINE": "1", **more}
    subprocess.run(["sh", "-ec", line], cwd=folder, env=env, check=True, timeout=60)


def test_code_in_utf16(tmp_path: Path) -> None:
    path = tmp_path / "the code.py"
    path.write_text("print('é')\n", encoding="utf-16")
    said = refused(
        lambda: read_code(path), "convert it: iconv -f utf-16 -t utf-8 {} > converted.py"
    )
    shell(said.removeprefix("convert it: "), tmp_path)
    assert read_code(tmp_path / "converted.py") == "print('é')\n"


def test_requirements_in_utf16_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "the list.txt"
    path.write_bytes("six\n".encode("utf-16-le"))
    said = refused(
        lambda: read_requirements([str(path)]),
        "for UTF-16: iconv -f utf-16le -t utf-8 {} > requirements.utf8.txt",
    )
    shell(said.removeprefix("for UTF-16: "), tmp_path)
    text = read_requirements([str(tmp_path / "requirements.utf8.txt")]).requirements
    assert text.split() == ["six"]


@pytest.mark.parametrize("first", [b"", b"# coding: nonsense\n"])
def test_requirements_in_another_encoding(first: bytes) -> None:
    data = b"six # caf\xe9\n"
    said = refused(
        lambda: decode_requirements(first + data, "r.txt"),
        "name its encoding in the first line, for example: # -*- coding: latin-1 -*-",
    )
    line = said.partition("example: ")[2].encode()
    assert decode_requirements(line + b"\n" + data, "r.txt").endswith("six # café\n")


def test_a_request_named_as_code_is_submitted(tmp_path: Path) -> None:
    path = tmp_path / "my request.json"
    path.write_text(json.dumps({"code": "print(1)"}))
    said = refused(lambda: read_code(path), "run it: stoke submit {}")
    verb, file = command(said)
    assert verb == "submit"
    assert request_from_json(Path(file).read_bytes(), file).code == "print(1)"


def test_code_named_as_a_request_is_run(tmp_path: Path) -> None:
    path = tmp_path / "my code.py"
    path.write_text("print(1)\n")
    said = refused(
        lambda: request_from_json(path.read_bytes(), str(path)), "run code: stoke run {}"
    )
    verb, file = command(said)
    assert verb == "run" and read_code(file) == "print(1)\n"


def test_a_notebook_named_as_code_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "the notebook.ipynb"
    path.write_text('{"cells": [{"cell_type": "code", "source": "print(1)"}], "nbformat": 4}')
    said = refused(lambda: read_code(path), "convert it: stoke render code {} > {}")
    shell(said.removeprefix("convert it: "), tmp_path)
    assert read_code(tmp_path / "the notebook.py") == "# %%\nprint(1)\n"


def test_a_command_of_ipython_is_removed() -> None:
    def convert(source: str) -> str:
        cells = [{"cell_type": "code", "source": source}]
        return notebook_to_script(json.dumps({"cells": cells, "nbformat": 4}).encode(), "x.ipynb")

    template = "remove it, and name the packages when you run the script: -w PACKAGE"
    refused(lambda: convert("%pip install six\nimport six"), template)
    assert convert("import six")
    refused(lambda: convert("%%time\nf()"), "remove it, or write it as Python")
    assert convert("f()")
    template = "put it into a function, and call asyncio.run(function())"
    refused(lambda: convert("await f()"), template)
    assert convert("async def function(): await f()\nasyncio.run(function())")


def test_code_with_the_name_of_another_language_is_piped(tmp_path: Path) -> None:
    path = tmp_path / "the code.sh"
    path.write_text("print(1)\n")
    said = refused(lambda: read_code(path), "if it is Python code: stoke run - < {}")
    verb, dash, arrow, file = command(said)
    assert (verb, dash, arrow) == ("run", "-", "<") and Path(file).read_text() == "print(1)\n"


def test_a_lockfile_named_as_code_is_given_as_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "pylock.toml"
    path.write_text('lock-version = "1.0"\npackages = []\n')
    said = refused(lambda: read_code(path), "give it by --lock {}")
    (file,) = shlex.split(said.partition("--lock ")[2])
    read_requirements([file])


def test_a_lockfile_with_extras_is_exported_anew(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\nversion = "1"\nrequires-python = ">=3.9"\n'
        "[project.optional-dependencies]\ndev = []\n"
    )
    path = tmp_path / "pylock.toml"
    path.write_text(
        'lock-version = "1.0"\n[[packages]]\nname = "y"\nversion = "1"\n'
        "marker = \"'dev' in extras\"\n"
    )
    said = refused(
        lambda: read_requirements([str(path)]),
        "lock what is wanted: uv export --format requirements.txt --extra NAME "
        "--output-file requirements.lock",
    )
    shell(said.partition(": ")[2].replace("NAME", "dev"), tmp_path)
    read_requirements([str(tmp_path / "requirements.lock")])


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("pyproject.toml", '[project]\nname = "x"\nversion = "1"\ndependencies = ["alpha"]\n'),
        ("requirements.in", "alpha\n"),
    ],
)
def test_a_lockfile_with_a_package_of_no_version_is_made_again(
    tmp_path: Path, file: str, content: str
) -> None:
    (tmp_path / file).write_text(content)
    path = tmp_path / "pylock.toml"
    path.write_text('lock-version = "1.0"\n[[packages]]\nname = "alpha"\n')
    said = refused(
        lambda: read_requirements([str(path)]),
        "lock the requirements again, FILE being a pyproject.toml or a list of requirements: "
        "uv pip compile --generate-hashes --output-file requirements.lock FILE",
    )
    index = PackageIndex("127.0.0.1")
    index.add("alpha", "1.0")
    line = said.rpartition(": ")[2].replace("FILE", file)
    shell(line, tmp_path, UV_OFFLINE="0", UV_DEFAULT_INDEX=index.url)
    index.stop()
    texts = read_requirements([str(tmp_path / "requirements.lock")])
    check_lockfile("requirements.lock", texts.requirements)


# --- what is taken in from this machine ------------------------------------------------------------

NO_FILES = {"UV_NO_CONFIG": "1"}


def spec_with(code: str = "1", dependencies: tuple[str, ...] = ("alpha",)) -> Any:
    return request_from_options(code=code, dependencies=list(dependencies))


def script(*lines: str) -> str:
    block = ["/// script", 'dependencies = ["alpha"]', "[tool.uv]", *lines, "///"]
    return "\n".join(f"# {line}" for line in block) + "\npass"


def in_environment(printed: str, environ: dict[str, str]) -> dict[str, str]:
    """The environment that the command in a hint makes, as a shell and env(1) make it."""
    line = printed.rpartition(": ")[2]
    assert line.endswith(" stoke run ...")
    report = "import json, os; print(json.dumps(dict(os.environ)))"
    line = line.replace("stoke run ...", shlex.join([sys.executable, "-c", report]))
    done = subprocess.run(
        ["sh", "-ec", line], env={**environ, "PATH": os.environ["PATH"]}, stdout=subprocess.PIPE,
        check=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize(
    "variables",
    [
        {"UV_NO_BUILD": "perhaps"},
        {"UV_CONSTRAINT": "/nowhere/c.txt"},
        {"UV_INDEX_URL": "ftp://host"},
    ],
)
def test_a_variable_of_uvs_is_left_out(variables: dict[str, str]) -> None:
    environ = {**NO_FILES, **variables}
    said = refused(
        lambda: take_in(spec_with(), environ),
        "unset it for this request: env -u {} stoke run ...",
    )
    take_in(spec_with(), in_environment(said, environ))


@pytest.mark.parametrize("text", ["[", "pip = 1", "nonsense = 1", "resolution = 1"])
def test_a_configuration_file_of_uvs_is_left_out(tmp_path: Path, text: str) -> None:
    file = tmp_path / "uv/uv.toml"
    file.parent.mkdir()
    file.write_text(text)
    environ = {"XDG_CONFIG_HOME": str(tmp_path)}
    said = refused(
        lambda: take_in(spec_with(), environ),
        "change {}, or ignore uv's configuration files: UV_NO_CONFIG=1 stoke run ...",
    )
    take_in(spec_with(), in_environment(said, environ))
    # The other way: the file that is named.
    named = Path(said.removeprefix("change ").partition(", or")[0])
    named.write_text("")
    take_in(spec_with(), environ)


def test_a_setting_in_a_script_is_removed() -> None:
    lines = ["resolution = 1", 'prerelease = "allow"']
    said = refused(
        lambda: take_in(spec_with(script(*lines)), NO_FILES),
        "change or remove {} in the script's [tool.uv]",
    )
    (name,) = filled(said, "change or remove {} in the script's [tool.uv]")
    take_in(spec_with(script(*(line for line in lines if not line.startswith(name)))), NO_FILES)


def test_a_source_names_an_index_that_is_set_and_a_package_that_is_asked_for() -> None:
    source = 'sources = { alpha = { index = "ours" } }'
    said = refused(
        lambda: take_in(spec_with(script(source)), NO_FILES),
        "add it: [[tool.uv.index]] with name and url",
    )
    header = re.findall(r"\[\[.+\]\]", said)[0]
    index = [header, 'name = "ours"', 'url = "https://h.example.org/simple"']
    take_in(spec_with(script(source, *index)), NO_FILES)

    other = script('sources = { beta = { index = "ours" } }', *index)
    template = "add {} to the dependencies, or remove its source"
    said = refused(lambda: take_in(spec_with(other), NO_FILES), template)
    take_in(spec_with(other, ("alpha", *filled(said, template))), NO_FILES)
    take_in(spec_with(script(*index)), NO_FILES)


def test_a_variable_that_is_not_set_is_exported() -> None:
    spec = spec_with(dependencies=("alpha @ https://h.example.org/${PART}/alpha.zip",))
    said = refused(lambda: take_in(spec, NO_FILES), "export {}=...")
    take_in(spec, {**NO_FILES, **exported(said)})
    said = refused(lambda: fill_in("https://${USER_NAME}@h", "index", {}), "export {}=...")
    assert fill_in("https://${USER_NAME}@h", "index", exported(said)) == "https://...@h"


def test_every_time_that_the_hint_gives_is_a_time() -> None:
    day = 86_400_000_000_000
    log = Span(20_000 * day, 20_001 * day)
    template = (
        "write 12:03, 12:03:45, 2026-11-21 12:03, -5m (before the end) or +90s (after the "
        "beginning)"
    )
    for wrong in ("noon", "25:61"):
        said = refused(partial(moment, wrong, log, log.last), template)
        examples = re.split(r", | or ", re.sub(r" \(.*?\)", "", said.removeprefix("write ")))
        assert len(examples) == 5
        for example in examples:
            assert moment(example, log, log.last) > 0


def test_code_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "code.py"
    data = "print('é')\n".encode("latin-1")
    path.write_bytes(data)
    said = refused(
        lambda: read_code(path),
        "declare its encoding in the first line, for example: # -*- coding: latin-1 -*-",
    )
    path.write_bytes(said.partition("example: ")[2].encode() + b"\n" + data)
    assert read_code(path).endswith("print('é')\n")
