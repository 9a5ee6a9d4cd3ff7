"""Metadata in a script's comments, against the reference's expression."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.request.pep723 import ScriptMetadata, _blocks, read_script_metadata
from stoke.request.requirement import RequirementError

# As in PEP 723.
REFERENCE = r"(?m)^# /// (?P<type>[a-zA-Z0-9-]+)$\s(?P<content>(^#(| .*)$\s)+)^# ///$"

SCRIPT = """\
#!/usr/bin/env python
# /// script
# requires-python = ">=3.11"
# dependencies = [
#   "pandas>=2,<3",
#
#   "rich",  # pretty
# ]
# [tool.other]
# x = 1
# ///

print("hello")
"""
EXPECTED = ScriptMetadata(["pandas>=2,<3", "rich"], ">=3.11")


@pytest.mark.parametrize(
    "code",
    [
        SCRIPT,
        SCRIPT.replace("\n", "\r\n"),
        SCRIPT.replace("\n", "\r"),
        "\ufeff" + SCRIPT.partition("\n")[2],
        "\ufeff" + SCRIPT.partition("\n")[2].replace("\n", "\r\n"),
        SCRIPT.rpartition("# ///\n")[0] + "# ///",
        SCRIPT + "\n# /// other\n# not = toml = at all\n# ///\n",
    ],
)
def test_read(code: str) -> None:
    assert read_script_metadata(code) == EXPECTED


def block(*lines: str) -> str:
    return "\n".join(["import os", "", "# /// script", *(f"# {line}" for line in lines), "# ///"])


@pytest.mark.parametrize(
    "code",
    [
        "",
        "print(1)",
        "# /// script\n# dependencies = []\n",  # never closed
        "# /// script\n# ///\n",  # no content
        "# /// script\n# x = 1\n\n# ///\n",  # interrupted
        "# /// script\n#x = 1\n# ///\n",  # no blank behind the mark
        " # /// script\n # x = 1\n # ///\n",
        "#/// script\n# x = 1\n# ///\n",
        "# /// script \n# x = 1\n# ///\n",
        "# /// Script\n# x = 1\n# ///\n",
        "# /// scripts\n# x = 1\n# ///\n",
    ],
)
def test_no_metadata(code: str) -> None:
    assert read_script_metadata(code) is None


def test_empty_metadata() -> None:
    assert read_script_metadata(block("[tool.x]")) == ScriptMetadata([], None)


def test_closing_lines_inside_the_content() -> None:
    code = block('x = """', "///", '"""', 'dependencies = ["a"]')
    assert read_script_metadata(code) == ScriptMetadata(["a"], None)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (block("x = 1") + "\n\n" + block("x = 1"), "second block at line 9"),
        (block("x = 1", "dependencies = [", "  oops", "]"), "not TOML at line 6"),
        (block("x = 1", "x = 2"), "not TOML at line 5"),
        (block('dependencies = ["a"'), "not TOML at line 5"),
        (block('x = """').replace("\n", "\r\n"), "not TOML at line 5"),
        (block("x = " + "9" * 5000), "not TOML"),
        (block("x = " + "[" * 5000), "nested too deeply"),
        (block('dependencies = "a"'), "must be a list"),
        (block("dependencies = [1]"), "must be a list"),
        (block("requires-python = 3.11"), "must be text"),
        (block('requires-python = "3.11 or so"'), "not a list of version bounds"),
        (block('dependencies = ["a", "./b"]'), "does not travel"),
        (block('dependencies = ["a b"]'), "is not a requirement"),
        (block('dependencies = ["a\\u001b[2J"]'), r"U\+001B"),
    ],
)
def test_refused(code: str, why: str) -> None:
    with pytest.raises(RequirementError, match=why) as caught:
        read_script_metadata(code)
    assert caught.value.field == "script metadata"
    assert str(caught.value).isprintable()


def test_a_toml_error_shows_the_line_of_the_code() -> None:
    with pytest.raises(RequirementError) as caught:
        read_script_metadata(block("x = 1", "dependencies = oops"))
    assert caught.value.text == "# dependencies = oops"


LINES = st.sampled_from(
    [
        *("# /// script", "# /// other-1", "# ///", "#", "# x = 1", "#x", "", "print()"),
        *(" # ///", "# /// a b", "# /// script\x0b", "# ///\u2028", "# \x85", "# /// ", "# /// é"),
    ]
)


@given(st.lists(LINES, max_size=14), st.booleans())
def test_blocks_are_those_of_the_reference(lines: list[str], end: bool) -> None:
    code = "\n".join(lines) + ("\n" if end else "")
    split = code.split("\n")
    ours = [
        (kind, "".join(f"{line}\n" for line in split[first + 1 : last]))
        for kind, first, last in _blocks(split)
    ]
    assert ours == [(found["type"], found["content"]) for found in re.finditer(REFERENCE, code)]


@given(st.text() | st.lists(LINES | st.text(), max_size=9).map("\n".join))
def test_any_code_is_read_or_refused(code: str) -> None:
    try:
        read_script_metadata(code)
    except RequirementError as error:
        assert error.field == "script metadata"


def test_many_unclosed_blocks_take_no_time() -> None:
    begun = time.monotonic()
    assert read_script_metadata("# /// script\n" * 200_000) is None
    assert time.monotonic() - begun < 5
