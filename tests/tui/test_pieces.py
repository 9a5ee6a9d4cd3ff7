"""Lists of packages as they are typed and pasted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.request.requirement_list import parse_list
from stoke.request.values import Names, split_requirements
from tui.new_job.tokenizer import cut, is_requirements_file, pasted, take

PYTHON = split_requirements


def SYSTEM(text: str) -> list[str]:
    return list(Names().from_text("system", text))


REQUIREMENTS = [
    "numpy",
    "pandas>=2,<3",
    "scipy >= 1.11, < 2",
    "uvicorn[standard,extra]>=0.30",
    "x; python_version > '3' and os_name == 'nt'",
    "y ; sys_platform == 'linux' or extra not in 'a b'",
    "z @ https://host/a,b/z-1.0.whl",
    "ruff~=0.5",
    "a(>=1,<2)",
    "./mine",
]


def typed(text: str) -> list[str]:
    """The pieces that come of typing `text` key by key, and then enter."""
    found: list[str] = []
    rest = ""
    for key in text:
        done, rest = take(rest + key, PYTHON)
        found += done
    return found + cut(rest, PYTHON)


@given(
    st.lists(st.sampled_from(REQUIREMENTS), max_size=5), st.sampled_from([", ", ",", "  ", "\n"])
)
def test_requirements_typed_by_keys_equal_the_pasted_list(wanted: list[str], between: str) -> None:
    text = between.join(wanted)
    assert typed(text) == cut(text, PYTHON)


@given(st.text(alphabet="ab1 ,;[]()<>=!~@'\"./-\t", max_size=40))
def test_nothing_typed_is_lost(text: str) -> None:
    found = "".join(typed(text))
    kept = [character for character in text if character not in " ,\t"]
    assert sorted(c for c in found if c not in " ,\t") == sorted(kept)


@given(st.text(max_size=200))
def test_any_text_is_split_without_an_error(text: str) -> None:
    for parse in (PYTHON, SYSTEM):
        take(text, parse)
        cut(text, parse)
        pasted(text, parse)


@pytest.mark.parametrize(
    ("text", "done", "rest"),
    [
        ("numpy,", ["numpy"], ""),
        ("numpy ", [], "numpy "),
        ("pandas>=2,", [], "pandas>=2,"),
        ("pandas>=2,<3,", [], "pandas>=2,<3,"),
        ("pandas>=2, six,", ["pandas>=2", "six"], ""),
        ("x[a, ", [], "x[a, "),
    ],
)
def test_a_comma_ends_a_requirement_unless_it_can_continue(
    text: str, done: list[str], rest: str
) -> None:
    assert take(text, PYTHON) == (done, rest)


def test_pasted_toml_and_json_lists_are_split() -> None:
    text = """\
dependencies = [
  "numpy>=2",  # the newest
  'pandas',
]
# a comment
six  # another
["x[a,b]", "y"]
"""
    assert pasted(text, PYTHON) == ["numpy>=2", "pandas", "six", "x[a,b]", "y"]


def test_a_bracket_that_is_never_closed_is_a_piece_of_its_own() -> None:
    assert cut("numpy\nx[a\nsix", PYTHON) == ["numpy", "x[a", "six"]


def test_requirements_files_are_recognized_by_their_syntax() -> None:
    hashed = "numpy==2.0 \\\n    --hash=sha256:00\n"
    assert is_requirements_file(hashed)
    assert is_requirements_file("-r other.txt\nnumpy\n")
    assert not is_requirements_file("numpy\npandas>=2\n")
    assert not is_requirements_file("-e .")


def test_ten_thousand_requirements_are_pasted_at_once() -> None:
    names = [f"package-{number}>=1,<2" for number in range(10_000)]
    assert pasted("\n".join(names), PYTHON) == names == parse_list("\n".join(names))
