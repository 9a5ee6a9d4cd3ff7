"""The three sources of a request: options, our own JSON, the earlier web service's; and PEP 723."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stoke.errors import RequestError
from stoke.request.source_code import decode_code
from stoke.request.sources import (
    MAX_REQUEST,
    read_code,
    request_from_json,
    request_from_options,
)
from stoke.request.spec import JobSpec
from stoke.request.values import split_requirements

EXAMPLES = Path(__file__).parents[2] / "examples"


def from_json(fields: Any) -> JobSpec:
    return request_from_json(json.dumps(fields).encode(), "standard input")


def refused(fields: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        from_json(fields)
    assert caught.value.exit_code == 2
    return caught.value


# --- the earlier service's JSON ------------------------------------------------------------------


def test_the_earlier_services_example_with_numpy() -> None:
    spec = from_json(
        {
            "pythonCode": "import numpy as np; print(np.array([1,2,3]))",
            "dependencies": "numpy",
            "useCache": True,
        }
    )
    assert spec.code == "import numpy as np; print(np.array([1,2,3]))"
    assert (spec.dependencies, spec.system, spec.use_cache) == (("numpy",), (), True)


def test_the_earlier_services_example_with_gcc() -> None:
    spec = from_json(
        {
            "pythonCode": "import subprocess; subprocess.run(['gcc', '--version'])",
            "systemDependencies": "gcc",
            "useCache": True,
        }
    )
    assert (spec.dependencies, spec.system, spec.use_cache) == ((), ("gcc",), True)


def test_the_earlier_services_example_with_both() -> None:
    code = "\nimport numpy as np\nimport subprocess\nprint('NumPy array:', np.array([1,2,3]))\n"
    spec = from_json(
        {
            "pythonCode": code,
            "dependencies": "numpy",
            "systemDependencies": "gcc",
            "useCache": True,
        }
    )
    assert spec.code == code
    assert (spec.dependencies, spec.system, spec.use_cache) == (("numpy",), ("gcc",), True)


@pytest.mark.parametrize(
    ("name", "dependencies", "system"),
    [
        ("numpy.json", ("numpy",), ()),
        ("gcc.json", (), ("gcc",)),
        ("numpy-and-gcc.json", ("numpy",), ("gcc",)),
    ],
)
def test_the_examples_in_this_repository(
    name: str, dependencies: tuple[str, ...], system: tuple[str, ...]
) -> None:
    spec = request_from_json((EXAMPLES / name).read_bytes(), name)
    assert (spec.dependencies, spec.system) == (dependencies, system)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("numpy pandas", ["numpy", "pandas"]),
        ("numpy,pandas", ["numpy", "pandas"]),
        ("numpy, pandas\nrequests", ["numpy", "pandas", "requests"]),
        ("pandas>=2,<3", ["pandas>=2,<3"]),
        ("pandas>=2,<3,numpy", ["pandas>=2,<3", "numpy"]),
        ("uvicorn[standard,extra]==0.30 numpy", ["uvicorn[standard,extra]==0.30", "numpy"]),
        ("", []),
        (" , ", []),
    ],
)
def test_text_lists_are_parsed_and_not_split_at_commas(text: str, found: list[str]) -> None:
    assert list(from_json({"pythonCode": "1", "dependencies": text}).dependencies) == found
    assert split_requirements(text) == found


def test_the_earlier_services_other_fields() -> None:
    spec = from_json(
        {
            "pythonCode": "1",
            "dependencies": None,
            "requirementsFile": "numpy==1.26.4\npandas>=2,<3\n",
            "systemDependencies": "gcc, make cmake",
            "useCache": False,
        }
    )
    assert spec.requirements == "numpy==1.26.4\npandas>=2,<3\n"
    assert spec.system == ("gcc", "make", "cmake")
    assert spec.use_cache is False


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"dependencies": ["numpy"]}, "dependencies"),
        ({"systemDependencies": 3}, "systemDependencies"),
        ({"requirementsFile": {}}, "requirementsFile"),
        ({"code": "2"}, "code"),
        ({"image": "python"}, "image"),
        ({"dependencies": "numpy ???"}, "dependencies[1]"),
        ({"requirementsFile": "numpy\n-e .\n"}, "requirements line 2"),
        ({"systemDependencies": "gcc; rm"}, "system"),
    ],
)
def test_the_earlier_services_json_with_mistakes(fields: dict[str, Any], field: str) -> None:
    assert refused({"pythonCode": "1", **fields}).field == field


# --- our own JSON --------------------------------------------------------------------------------


def test_the_json_of_show_can_be_submitted_again() -> None:
    spec = request_from_options(
        code="# /// script\n# dependencies = ['numpy']\n# requires-python = '>=3.11'\n# ///\n1",
        args=["a", "{{ }}"],
        dependencies=["pandas>=2,<3"],
        requirements="requests\n",
        system=["gcc"],
        env={"A": "x"},
        secrets={"B": "env:B"},
        index={"url": "https://index.example/simple", "credentials": "file:/run/secret"},
        image="python:3.13",
        timeout="5m",
        cpu=0.5,
        memory="1g",
        use_cache=False,
        scope="team",
    )
    assert from_json(spec.model_dump(mode="json")) == spec
    assert from_json(json.loads(spec.model_dump_json())) == spec


@pytest.mark.parametrize("size", [1, 1024, 2**20])
def test_code_of_any_size_travels_in_json(size: int) -> None:
    code = "x = '\U0001f600{{ }}\\'\r\n" + "#" * size
    assert from_json({"code": code}).code == code


def test_a_byte_order_mark_before_the_json_is_nothing() -> None:
    assert request_from_json(b'\xef\xbb\xbf{"code": "1"}', "x").code == "1"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not JSON"),
        (b"print(1)", "is not JSON"),
        (b'{"code": "1"', "line 1, column 13"),
        (b'{"code": "1"} {}', "is not JSON"),
        (b'{"code": "\xff"}', "is not UTF-8 (byte 10)"),
        (b"[]", "no JSON object"),
        (b'"code"', "no JSON object"),
        (b"null", "no JSON object"),
        pytest.param(b"[" * 100_000, "nested too deeply", id="deep"),
        pytest.param(b'{"code": "1", "cpu": ' + b"9" * 5000 + b"}", "is not JSON", id="digits"),
        pytest.param(b" " * (MAX_REQUEST + 1), "32 MiB", id="long"),
    ],
)
def test_an_invalid_request_names_its_source(data: bytes, why: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_from_json(data, "standard input")
    assert caught.value.field == "standard input"
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "code"),
        ({"code": "1", "colour": "red"}, "colour"),
        ({"code": "1", "dependencies": "numpy"}, "dependencies"),
        ({"code": "1", "dependencies": {"numpy": 1}}, "dependencies"),
        ({"code": "1", "dependencies": [3]}, "dependencies.0"),
        ({"code": "1", "dependencies": ["-e ."]}, "dependencies[0]"),
        ({"code": "1", "use_cache": "perhaps"}, "use_cache"),
        ({"code": "1", "timeout": float("nan")}, "timeout"),
        ({"code": "1", "timeout": float("inf")}, "timeout"),
        ({"code": "1", "index": "https://index.example"}, "index"),
        ({"code": "1", "env": {"A": 1}}, "env.A"),
        ({"code": "1", "args": "abc"}, "args"),
        ({"code": "\ud800"}, "code"),
        ({"code": "a\0"}, "code"),
    ],
)
def test_our_own_json_with_mistakes(fields: dict[str, Any], field: str) -> None:
    error = refused(fields)
    assert error.field == field
    assert error.why


# --- PEP 723 -------------------------------------------------------------------------------------

SCRIPT = """\
# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "pandas>=2,<3",
#   "numpy",
# ]
# ///
import pandas
"""


def test_a_scripts_metadata_is_added_to_the_options() -> None:
    spec = request_from_options(code=SCRIPT, dependencies=["requests", "numpy"])
    assert spec.dependencies == ("requests", "numpy", "pandas>=2,<3")
    assert spec.python == ">=3.11,<3.14"
    assert spec.code == SCRIPT


def test_a_version_that_was_asked_for_wins() -> None:
    assert request_from_options(code=SCRIPT, python="3.12").python == "3.12"


@pytest.mark.parametrize("fields", [{"code": SCRIPT}, {"pythonCode": SCRIPT}])
def test_metadata_joins_either_json(fields: dict[str, str]) -> None:
    assert from_json(fields).dependencies == ("pandas>=2,<3", "numpy")


@pytest.mark.parametrize("code", [SCRIPT.replace("\n", "\r\n"), "\ufeff" + SCRIPT])
def test_metadata_is_found_behind_a_byte_order_mark_and_between_crlf(code: str) -> None:
    spec = request_from_options(code=code)
    assert spec.dependencies == ("pandas>=2,<3", "numpy")
    assert spec.code == code


@pytest.mark.parametrize("dependencies", ["requests", 7, {"a": 1}])
def test_metadata_does_not_make_a_wrong_list_right(dependencies: Any) -> None:
    """A text is not the list of its letters."""
    assert refused({"code": SCRIPT, "dependencies": dependencies}).field == "dependencies"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('# dependencies = ["numpy=1"]', "is not a requirement"),
        ('# dependencies = ["-e ."]', "does not travel"),
        ('# dependencies = "numpy"', "must be a list"),
        ("# dependencies = [", "TOML"),
        ('# requires-python = "three"', "version bounds"),
        ("# requires-python = 3", "must be text"),
    ],
)
def test_metadata_with_mistakes_is_refused(line: str, why: str) -> None:
    with pytest.raises(RequestError) as caught:
        request_from_options(code=f"# /// script\n{line}\n# ///\n1")
    assert caught.value.field == "script metadata"
    assert why in caught.value.why


# --- code in files -------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["print(1)\r\n", "\ufeffprint(1)\n", "\U0001f600\r", "a\n\n\n"])
def test_a_file_is_read_character_for_character(tmp_path: Path, code: str) -> None:
    path = tmp_path / "main.py"
    path.write_bytes(code.encode())
    assert read_code(path) == code


def test_a_file_that_is_not_utf8_is_named_with_its_line_and_a_way_out() -> None:
    with pytest.raises(RequestError) as caught:
        decode_code("a = 1\nb = 'é'\n".encode("latin1"), "my file.py")
    assert caught.value.field == "my file.py"
    assert "line 2" in caught.value.why and "0xe9" in caught.value.why
    assert "# -*- coding: latin-1 -*-" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["missing.py", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError) as caught:
        read_code(tmp_path / name)
    assert caught.value.field == str(tmp_path / name)
    assert "cannot be read: " in caught.value.why
