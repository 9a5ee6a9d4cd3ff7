"""Checking one dependency, compared with `packaging`."""

from __future__ import annotations

import pickle
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from stoke.request.requirement import (
    RequirementError,
    _is_plain,
    canonical_name,
    check_bounds,
    check_requirement,
    is_exact,
    names,
)
from tests.request.requirement_strategies import PIECES, STAYS, requirements


@pytest.mark.parametrize(
    "text",
    [
        "numpy",
        "Foo_Bar.baz-qux",
        "requests [security] >= 2.8.1, == 2.8.* ; python_version < '2.7'",
        "a (>=1,<2)",
        "a~=1.4",
        "a\t>= 1.dev1",
        "a===weird",
        "a==1.0+cu118",
        "a @ https://packages.example.org/a-1.0.whl",
        "a @ https://packages.example.org:8080/a@b:c",
        "a @ git+ssh://git@code.example.org/r.git@main",
        "a @ git+https://code.example.org/r.git@v1 ; os_name == 'posix'",
        'a; os_name == "a" or (extra == "x" and os_name != "b")',
    ],
)
def test_requirements_that_pass(text: str) -> None:
    check_requirement(text, "dependencies[0]")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        # Local things.
        ("./x", STAYS),
        ("../x", STAYS),
        (".", STAYS),
        ("..", STAYS),
        ("/x", STAYS),
        ("~/x", STAYS),
        ("~someone/x", STAYS),
        ("./x[extra]", STAYS),
        (r".\x", STAYS),
        (r"C:\x", STAYS),
        ("dist/x", STAYS),
        (r"dist\x", STAYS),
        ("$HOME/x", STAYS),
        ("x.whl", STAYS),
        ("x-1.0.tar.gz", STAYS),
        ("x.ZIP ; os_name == 'a'", STAYS),
        ("foo @ file:///x", STAYS),
        ("foo @ FILE:x", STAYS),
        ("file:///x", STAYS),
        ("foo @ git+file:///x", STAYS),
        ("foo @ ./x", STAYS),
        ("foo @ x/y", STAYS),
        ("foo @ C:/x", STAYS),
        ("-e ./x", STAYS),
        ("--editable=x", STAYS),
        ("-r x.txt", "paste its lines"),
        ("-cx.txt", "the field constraints"),
        # Options, and what a shell would run.
        ("--index-url https://packages.example.org", "is an option"),
        ("--privileged", "is an option"),
        ("-rf", "paste its lines"),
        ("$(id)", "is not a requirement"),
        ("`id`", "is not a requirement"),
        ("a; touch pwn #", "is not a requirement"),
        ("{{workflow.uid}}", "is not a requirement"),
        ("[@click=app.quit]CLICK[/]", "is not a requirement"),
        ("numpy==1 --hash=sha256:00", "is not a requirement"),
        # What does not show.
        ("", "is empty"),
        (" \t", "is empty"),
        ("a\nb", "line break"),
        ("a\r", "line break"),
        ("a\x1b[31m", r"U\+001B"),
        ("a\t\x1b", r"U\+001B"),
        ("a\x00", r"U\+0000"),
        ("a\x9b31m", r"U\+009B"),
        ("a; os_name == '\u202e'", r"U\+202E"),
        ("\ufeffa", r"U\+FEFF"),
        ("a\xa0>=1", r"U\+00A0"),
        ("\ud800", r"U\+D800"),
        # Addresses.
        ("https://packages.example.org/x.whl", "has no name; write NAME @"),
        ("foo @ https://user:hunter2@h.example.org/x", "stored with the job.*index-credentials"),
        ("https://user:hunter2@h.example.org/x", "stored with the job"),
        ("foo @ https://hunter2@h.example.org/x", "stored with the job"),
        ("foo @ git+ssh://git:hunter2@h.example.org/x", "stored with the job"),
        ("foo @ https://user:hun/ter2@h.example.org/x", "broken address"),
        ("foo @ ftp://h.example.org/x", "begins with https"),
        ("foo @ hg+https://h.example.org/x", "begins with https"),
        ("foo @ ssh://git@h.example.org/x", "begins with https"),
        ("foo @ git+git@h.example.org:x/y", "begins with https"),
        ("foo @ 1.0", "begins with https"),
        ("foo @ https:///x", "broken address"),
        ("foo @ https://[::1/x", "broken address"),
        ("foo @ https://h.example.org/x\\", "broken address"),
        # Slips, with the way out.
        ("numpy=1.0", "write == for"),
        ("numpy^1.0", "write ~="),
        ("<3", "its name first"),
        ('"numpy"', "remove the quotes"),
        ("foo @ https://h.example.org/x; os_name == 'a'", "a blank before the ;"),
        ("numpy>=1 <2", "expected comma"),
        ("numpy~=1", "bounds that are not versions"),
        ("numpy>=latest", "bounds that are not versions"),
        ("numpy>=", "bounds that are not versions"),
        ("numpy scipy", "is not a requirement"),
        ("numpy; python_version < 3", "quoted string"),
        ("numpy;", "is not a requirement"),
        ("numpy_", "letter or digit"),
        ("é", "is not a requirement"),
        ("a; " + "(" * 4000, "nested too deeply"),
        ("a" * 9000, "longer than 8192"),
    ],
)
def test_requirements_that_are_refused(text: str, why: str) -> None:
    with pytest.raises(RequirementError, match=f"(?s){why}") as caught:
        check_requirement(text, "dependencies[2]")
    error = caught.value
    assert re.search(why, error.why)
    assert error.field == "dependencies[2]"
    assert str(error).startswith("dependencies[2]: ")
    assert str(error).isprintable()
    assert "hunter2" not in repr(error) + str(error) + error.text
    assert "ter2" not in repr(error) + str(error) + error.text


def test_an_error_names_field_text_and_reason() -> None:
    with pytest.raises(RequirementError) as caught:
        check_requirement("./x", "dependencies[2]")
    assert str(caught.value) == f"dependencies[2]: './x' {caught.value.why}"
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.field, again.text, again.why) == ("dependencies[2]", "./x", caught.value.why)


def test_an_error_is_short() -> None:
    with pytest.raises(RequirementError) as caught:
        check_requirement("a" * 5000 + "!", "f")
    assert len(str(caught.value)) < 400


@given(requirements())
def test_valid_requirements_pass(text: str) -> None:
    check_requirement(text, "f")


@given(st.text() | PIECES)
@example("a~=1")
@example("a ;")
@example("a,")
@example("a==1,")
@example("a_")
@example("a\n")
@example("a==\u0661")
def test_accepted_texts_are_requirements_for_packaging(text: str) -> None:
    try:
        check_requirement(text, "f")
    except RequirementError:
        assert not _is_plain(text) or re.search(r"\.(whl|zip|tar)", text)
        return
    Requirement(text)
    assert "\n" not in text


@given(PIECES)
@example("numpy ~= 1.4 , <2 ; python_version < '3.9' and sys_platform == \"linux\"")
def test_the_fast_path_agrees_with_packaging(text: str) -> None:
    if _is_plain(text):
        Requirement(text)


@pytest.mark.parametrize(
    "text",
    ["numpy", "pandas[aws,hdf5]>=2,<3", "a ~= 1.4", "a==1.0 ; python_full_version >= '3.9'"],
)
def test_usual_requirements_take_the_fast_path(text: str) -> None:
    assert _is_plain(text)


@pytest.mark.parametrize("text", [">=3.11", ">=3.11,<4", "==3.12.*", "", "~=3.11"])
def test_bounds_that_pass(text: str) -> None:
    check_bounds(text, "f")


@pytest.mark.parametrize("text", ["3.11", ">=x", "latest", ">=3 <4", "~=3", "\n"])
def test_bounds_that_are_refused(text: str) -> None:
    if not text.strip():
        check_bounds(text, "f")
        return
    with pytest.raises(RequirementError, match=r"^f: .*version bounds"):
        check_bounds(text, "f")


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("a==1.0", True),
        ("a===1.0", True),
        ("A[x] == 1.0+cu1 ; os_name == 'a'", True),
        ("a (==1.0)", True),
        ("a==1.*", False),
        ("a==1.0,!=1.1", False),
        ("a>=1.0", False),
        ("a~=1.0", False),
        ("a", False),
        ("a; python_version == '3.9'", False),
        ("a @ https://h.example.org/a==1.0", False),
    ],
)
def test_exact(text: str, exact: bool) -> None:
    assert is_exact(text) is exact


def test_names() -> None:
    assert names(
        [
            "Foo_Bar[x]>=1",
            "foo.bar",
            "b @ https://h.example.org/c-1.0.whl",
            "https://h.example.org/a_b-1.0-py3-none-any.whl#sha256=00",
            "https://h.example.org/my-package-1.0.tar.gz?x=1",
            "git+https://h.example.org/r.git@v1#subdirectory=x&egg=Zed",
            "git+https://h.example.org/r.git",
            "./x",
        ]
    ) == ["foo-bar", "b", "a-b", "my-package", "zed"]


def test_canonical_name_without_a_name_is_the_text() -> None:
    assert canonical_name("git+https://h.example.org/r.git") == "git+https://h.example.org/r.git"
    assert canonical_name("NumPy==1.0") == "numpy"
