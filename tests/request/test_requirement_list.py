"""Splitting a text of several dependencies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.request.requirement import RequirementError
from stoke.request.requirement_list import parse_list
from tests.request.requirement_strategies import requirements


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" ,\n,, \t", []),
        ("pandas", ["pandas"]),
        ("pandas>=2,<3 numpy", ["pandas>=2,<3", "numpy"]),
        ("pandas>=2,<3,numpy", ["pandas>=2,<3", "numpy"]),
        ("pandas >=2 , <3 , numpy", ["pandas >=2 , <3", "numpy"]),
        ("numpy >= 1.2 , < 2\nscipy", ["numpy >= 1.2 , < 2", "scipy"]),
        ("a,b;c d", ["a", "b;c d"]),
        ("a[b,c] d", ["a[b,c]", "d"]),
        ("a [b, c] >=1, d", ["a [b, c] >=1", "d"]),
        ("a (>=1,<2) b", ["a (>=1,<2)", "b"]),
        ("a[x](>=1), b", ["a[x](>=1)", "b"]),
        ("numpy==1.*,!=1.2 ~x", ["numpy==1.*,!=1.2 ~x"]),
        ("torch==2.1+cu118 a==1!2.0", ["torch==2.1+cu118", "a==1!2.0"]),
        ('a; python_version < "3.9", b', ['a; python_version < "3.9"', "b"]),
        ('a; python_version < "3.9" b', ['a; python_version < "3.9"', "b"]),
        ("a ; os_name == 'x, y' b", ["a ; os_name == 'x, y'", "b"]),
        (
            'a; python_version < "3.9" and (os_name == \'nt\' or extra == "x") b>=1, c',
            ['a; python_version < "3.9" and (os_name == \'nt\' or extra == "x")', "b>=1", "c"],
        ),
        ("a; os_name not  in 'nt' b", ["a; os_name not  in 'nt'", "b"]),
        ("a; 'nt' in os_name, in-place", ["a; 'nt' in os_name", "in-place"]),
        ("a; os_name=='x' or-tools and1", ["a; os_name=='x'", "or-tools", "and1"]),
        (
            "foo @ https://h/p,with,commas#frag bar",
            ["foo @ https://h/p,with,commas#frag", "bar"],
        ),
        ("foo @ https://h/p.whl, bar", ["foo @ https://h/p.whl", "bar"]),
        ("foo@https://h/p.whl\r\nbar", ["foo@https://h/p.whl", "bar"]),
        ("foo @ git+https://h/r.git@v1.0 bar", ["foo @ git+https://h/r.git@v1.0", "bar"]),
        (
            "foo[x] @ https://h/p ; os_name == 'a', bar",
            ["foo[x] @ https://h/p ; os_name == 'a'", "bar"],
        ),
        ("https://h/a,b.whl numpy", ["https://h/a,b.whl", "numpy"]),
        # What is no requirement stays in one piece, for check_requirement to name.
        ("numpy>=1 <2 scipy", ["numpy>=1 <2", "scipy"]),
        ("numpy=1.0, a^1", ["numpy=1.0", "a^1"]),
        ("-e ./x, ../y ~/z", ["-e", "./x", "../y", "~/z"]),
        ('"numpy>=1,<2", scipy', ['"numpy>=1,<2"', "scipy"]),
        ("a; python_version < 3.9, b", ["a; python_version < 3.9", "b"]),
        (
            "foo @ https://h/x; os_name == 'a' bar",
            ["foo @ https://h/x; os_name == 'a'", "bar"],
        ),
        ("numpy >=1,\n<2", ["numpy >=1", "<2"]),
        ("a) b", ["a)", "b"]),
        ("a; os_name=='x') b", ["a; os_name=='x')", "b"]),
        ("a; (os_name == 'x' b, c", ["a; (os_name == 'x' b", "c"]),
    ],
)
def test_split(text: str, expected: list[str]) -> None:
    assert parse_list(text) == expected


@pytest.mark.parametrize(
    ("text", "field", "piece"),
    [
        ("numpy a[b c", "dependencies[1]", "a[b c"),
        ("a (>=1, b\nc)", "dependencies[0]", "a (>=1, b"),
        ("a; os_name == 'x, b", "dependencies[0]", "a; os_name == 'x, b"),
        ('a, b, "c', "dependencies[2]", '"c'),
    ],
)
def test_split_names_an_unclosed_bracket_or_quote(text: str, field: str, piece: str) -> None:
    with pytest.raises(RequirementError, match="never closed") as caught:
        parse_list(text)
    assert (caught.value.field, caught.value.text) == (field, piece)


def test_split_names_the_callers_field() -> None:
    with pytest.raises(RequirementError) as caught:
        parse_list("a [", "--with")
    assert caught.value.field == "--with[0]"


@given(
    st.lists(requirements(), max_size=6),
    st.sampled_from([", ", " ", "\n", " , ", "\r\n", ",\n", "\t"]),
)
def test_joined_requirements_split_back(items: list[str], separator: str) -> None:
    assert parse_list(separator.join(items)) == items


@given(st.lists(requirements(addresses=False), max_size=6))
def test_requirements_joined_by_bare_commas_split_back(items: list[str]) -> None:
    assert parse_list(",".join(items)) == items


@given(st.text() | st.text("ab1 ,\n\t[]()<>=!~;@'\"./:-_#\\"))
def test_splitting_loses_nothing(text: str) -> None:
    try:
        pieces = parse_list(text)
    except RequirementError:
        return
    rest = text
    for piece in pieces:
        assert piece == piece.strip() != ""
        before, found, rest = rest.partition(piece)
        assert found
        assert not before.strip(" ,\t\r\n") or not before.replace(",", "").strip()
    assert not rest.replace(",", "").strip()
