"""Dependencies as people write them: split, checked, and requirements files taken apart."""

from __future__ import annotations

import pickle
import re
import time

import pytest
from hypothesis import assume, example, given
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
from stoke.request.requirement_list import parse_list
from stoke.request.requirements_text import (
    Entry,
    ParsedRequirements,
    parse_constraints,
    parse_requirements,
)

SHA256 = "sha256:" + "0a" * 32
SHA384 = "sha384:" + "1b" * 48
SHA512 = "sha512:" + "2c" * 64


# --- lists ---------------------------------------------------------------------------------------


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
def test_split_names_what_is_never_closed(text: str, field: str, piece: str) -> None:
    with pytest.raises(RequirementError, match="never closed") as caught:
        parse_list(text)
    assert (caught.value.field, caught.value.text) == (field, piece)


def test_split_names_the_callers_field() -> None:
    with pytest.raises(RequirementError) as caught:
        parse_list("a [", "--with")
    assert caught.value.field == "--with[0]"


NAMES = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,8}[A-Za-z0-9])?", fullmatch=True).filter(
    lambda name: (
        name.lower() not in ("and", "or", "in", "not")
        and not re.search(r"\.(whl|zip|tar|t[bglx]z)|\.tar\.", name, re.IGNORECASE)
    )
)
BLANK = st.sampled_from(["", " ", "\t", "  "])
VERSION = st.sampled_from(["1", "2.0", "1.2.3", "3.9.1rc1", "1.0.post1", "2!1.0", "0.1.dev3"])
OPERATOR = st.sampled_from(["==", "!=", ">=", "<=", "<", ">", "~="])


@st.composite
def bounds(draw: st.DrawFn) -> str:
    clauses = [
        draw(OPERATOR) + draw(BLANK) + draw(VERSION).replace("1", "1.0", 1)
        for _ in range(draw(st.integers(1, 3)))
    ]
    comma = draw(BLANK) + "," + draw(BLANK)
    joined = comma.join(clauses)
    return f"({joined})" if draw(st.booleans()) else joined


@st.composite
def conditions(draw: st.DrawFn) -> str:
    quote = draw(st.sampled_from("'\""))
    value = quote + draw(st.sampled_from(["3.9", "nt", "x, y", "a b", "or c"])) + quote
    variable = draw(st.sampled_from(["python_version", "os_name", "extra", "sys_platform"]))
    operator = draw(st.sampled_from([" == ", "==", " < ", " in ", " not in "]))
    return variable + operator + value


MARKERS = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map("".join),
        inner.map(lambda marker: f"({marker})"),
    ),
    max_leaves=4,
)
ADDRESSES = st.sampled_from(
    [
        "https://packages.example.org/p,with,commas/a-1.0.tar.gz#sha256=00&x=1,2",
        "https://packages.example.org:8443/a.whl?x=;y",
        "git+https://code.example.org/r.git@v1.0",
        "git+ssh://git@code.example.org/r.git",
    ]
)


@st.composite
def requirements(draw: st.DrawFn, addresses: bool = True) -> str:
    text = draw(NAMES)
    if draw(st.booleans()):
        text += draw(BLANK) + "[" + draw(st.sampled_from(["x", "x,y", "x , y"])) + "]"
    if addresses and draw(st.integers(0, 3)) == 0:
        text += " @ " + draw(ADDRESSES)
        if draw(st.booleans()):
            text += " ;" + draw(BLANK) + draw(MARKERS)
        return text
    if draw(st.booleans()):
        text += draw(BLANK) + draw(bounds())
    if draw(st.booleans()):
        text += draw(BLANK) + ";" + draw(BLANK) + draw(MARKERS)
    return text


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


# --- one requirement -----------------------------------------------------------------------------


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


STAYS = "does not travel to where the job runs"


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


PIECES = st.lists(
    st.sampled_from(
        [
            *"aB1_-.[],<>=!~;@ \t\n'\"*+()",
            *("==", ">=", "~=", "1.0", "a[b]", " and ", "'3'", "python_version", ".whl", "file:"),
            *("; python_version < '3'", "https://h/x"),
        ]
    ),
    max_size=8,
).map("".join)


@given(st.text() | PIECES)
@example("a~=1")
@example("a ;")
@example("a,")
@example("a==1,")
@example("a_")
@example("a\n")
@example("a==\u0661")
def test_what_passes_is_a_requirement_for_packaging(text: str) -> None:
    try:
        check_requirement(text, "f")
    except RequirementError:
        assert not _is_plain(text) or re.search(r"\.(whl|zip|tar)", text)
        return
    Requirement(text)
    assert "\n" not in text


@given(PIECES)
@example("numpy ~= 1.4 , <2 ; python_version < '3.9' and sys_platform == \"linux\"")
def test_the_short_way_agrees_with_packaging(text: str) -> None:
    if _is_plain(text):
        Requirement(text)


@pytest.mark.parametrize(
    "text",
    ["numpy", "pandas[aws,hdf5]>=2,<3", "a ~= 1.4", "a==1.0 ; python_full_version >= '3.9'"],
)
def test_the_usual_kind_goes_the_short_way(text: str) -> None:
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


# --- requirements files --------------------------------------------------------------------------


def texts(parsed: ParsedRequirements) -> list[str]:
    return [entry.text for entry in parsed.requirements]


def test_empty_file() -> None:
    assert parse_requirements(" \r\n# only a comment\n") == ParsedRequirements(
        [], None, (), False, ()
    )


def test_a_whole_file() -> None:
    parsed = parse_requirements(
        "\ufeff# a comment\r\n"
        "\r\n"
        "idna==3.10 ; python_version >= '3.9' \\\r\n"
        f"    --hash={SHA256} \\\r\n"
        f"    --hash {SHA512.upper()} # and another\r\n"
        "    # via requests\r\n"
        "Requests [security]>=2 # why\r\n"
        "https://packages.example.org/a-1.0.whl#egg=a ; os_name == 'posix'\r\n"
        "git+https://code.example.org/r.git@v1.0\r\n"
        "num\\\r\n"
        "py\r\n"
        "--pre --index-url https://packages.example.org/simple\r\n"
        "--extra-index-url=https://one.example.org --extra-index-url https://two.example.org\r\n"
        "--no-binary numpy,scipy\r\n"
        "--only-binary=:all:\r\n"
        "-f https://links.example.org/\r\n"
        "--require-hashes"
    )
    assert parsed.requirements == [
        Entry(3, "idna==3.10 ; python_version >= '3.9'", (SHA256, SHA512)),
        Entry(7, "Requests [security]>=2", ()),
        Entry(8, "https://packages.example.org/a-1.0.whl#egg=a ; os_name == 'posix'", ()),
        Entry(9, "git+https://code.example.org/r.git@v1.0", ()),
        Entry(10, "numpy", ()),
    ]
    assert parsed.index == "https://packages.example.org/simple"
    assert parsed.extra_indexes == ("https://one.example.org", "https://two.example.org")
    assert parsed.require_hashes
    assert parsed.options == (
        "--pre",
        "--no-binary numpy",
        "--no-binary scipy",
        "--only-binary :all:",
        "--find-links https://links.example.org/",
    )


@pytest.mark.parametrize("option", ["-i https://i.example.org", "-ihttps://i.example.org"])
def test_the_short_index_option(option: str) -> None:
    assert parse_requirements(option).index == "https://i.example.org"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a#b", None),
        ("a #b", ["a"]),
        ("a\t#b", ["a"]),
        ("#a\nb", ["b"]),
        ("a # c \\\nb", ["a", "b"]),
        ("# c \\\nb", ["b"]),
        ("a \\\n# c\nb", ["a", "b"]),
        ("a\rb\r\nc\nd", ["a", "b", "c", "d"]),
        ("a @ https://h.example.org/x#frag", ["a @ https://h.example.org/x#frag"]),
        ("a>=1,\\\n<2", ["a>=1,<2"]),
        ("  a  ", ["a"]),
        ("a \\", None),
        ("a\x0cb", None),
    ],
)
def test_lines_and_comments(text: str, expected: list[str] | None) -> None:
    if expected is None:
        with pytest.raises(RequirementError, match=r"^requirements line 1: "):
            parse_requirements(text)
    else:
        assert texts(parse_requirements(text)) == expected


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("-e .", STAYS),
        ("-e.", STAYS),
        ("--editable ./x", STAYS),
        ("-e git+file:///r", STAYS),
        ("-e git+https://u:hunter2@h.example.org/r", "stored with the job"),
        ("-r other.txt", "paste its lines"),
        ("--requirement=other.txt", "paste its lines"),
        ("-c limits.txt", "the field constraints"),
        ("-cconstraints.txt", "the field constraints"),
        ("requests>=2 -f https://h.example.org/x", "a line of its own"),
        ("_libgcc_mutex=0.1=main", "as conda writes it"),
        ("numpy=1.26.4=py311h64a7726_0", "as conda writes it"),
        ("Django>=1.8<2.0", "put a comma between"),
        ("numpy>=1 <2", "put a comma between"),
        ("numpy>=1 scipy", "or end$"),
        ("pytz>dev", "bounds that are not versions"),
        ("[testing]", "has no sections"),
        ('; python_version < "4"', "write a marker on the line"),
        ("--find-links ./wheels", STAYS),
        ("-f /wheels", STAYS),
        ("-f file:///wheels", STAYS),
        ("--index-url /simple", STAYS),
        ("./x", STAYS),
        ("file:///x.whl", STAYS),
        ("x.whl", STAYS),
        (f"x.whl --hash={SHA256}", STAYS),
        ("--unheard-of", "not known here, --unheard-of"),
        ("--trusted-host h", "not known here, --trusted-host"),
        ("--prefer-binary", "not known here"),
        ("-x", "not known here"),
        ("-", "not known here"),
        ("--pre=1", "not known here, --pre"),
        ("--pre numpy", "not known here, numpy"),
        ("--unheard-of=https://u:hunter2@h.example.org", "not known here"),
        ("-i", "no value for --index-url"),
        ("--index-url=", "no value for --index-url"),
        ("--extra-index-url https://u:hunter2@h.example.org", "stored with the job"),
        ("--index-url https://hunter2@h.example.org", "stored with the job"),
        ("--index-url git+https://h.example.org", "begins with https"),
        ("--no-binary", "no value"),
        ("--no-binary ./x", "needs names"),
        ("--only-binary a,,b", "needs names"),
        ("numpy scipy", "is not a requirement"),
        ("https://h.example.org/x ; bad", "is not a requirement"),
        ("https://u:hunter2@h.example.org/x", "stored with the job"),
        ("git+https://u:hunter2@h.example.org/x", "stored with the job"),
        ("numpy --pre", "has --pre behind a requirement"),
        ("numpy --config-settings=x", "has --config-settings behind"),
        ("numpy -e x", STAYS),
        (f"--hash={SHA256}", "no requirement"),
        (f"numpy --hash={SHA256} scipy", "other than --hash"),
        (f"git+https://h.example.org/r --hash={SHA256}", "nothing can check"),
        (f"r @ git+https://h.example.org/r --hash={SHA256}", "nothing can check"),
        ("numpy --hash", "not sha256:"),
        ("numpy --hash=", "not sha256:"),
        ("numpy --hash=00", "not sha256:"),
        ("numpy --hash=blake2b:00", "not sha256:"),
        ("numpy --hash=md5:" + "0" * 32, "by md5, too weak"),
        ("numpy --hash=sha1:" + "0" * 40, "by sha1, too weak"),
        ("numpy --hash=sha256:" + "0" * 63, "not 64 digits"),
        ("numpy --hash=sha256:" + "0" * 65, "not 64 digits"),
        ("numpy --hash=sha256:" + "g" * 64, "not 64 digits"),
        ("numpy --hash=sha384:" + "0" * 64, "not 96 digits"),
        ("numpy --hash=sha512:" + "0" * 64, "not 128 digits"),
        ("-i https://h.example.org/\u202e", r"U\+202E"),
        ("num\x1b[31mpy", r"U\+001B"),
    ],
)
def test_lines_that_are_refused(line: str, why: str) -> None:
    with pytest.raises(RequirementError, match=why) as caught:
        parse_requirements(f"# first\npandas\n{line}\nscipy")
    assert caught.value.field == "requirements line 3"
    assert str(caught.value).isprintable()
    assert "hunter2" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-e git+https://h.example.org/r@v1#egg=r", "git+https://h.example.org/r@v1#egg=r"),
        ("-egit+https://h.example.org/r", "git+https://h.example.org/r"),
        ("--editable=git+ssh://git@h.example.org/r", "git+ssh://git@h.example.org/r"),
        ("--editable r[x] @ git+https://h.example.org/r", "r[x] @ git+https://h.example.org/r"),
        (
            "-e git+https://h.example.org/r@v1#egg=r[x,y]&subdirectory=d ; os_name == 'posix'",
            "r[x,y] @ git+https://h.example.org/r@v1#subdirectory=d ; os_name == 'posix'",
        ),
        ("git+https://h.example.org/r#subdirectory=d&egg=r[x]", "r[x] @ git+https://h.example.org/r#subdirectory=d"),
        ("https://h.example.org/r.zip#egg=r[x]", "r[x] @ https://h.example.org/r.zip"),
    ],
)  # fmt: skip
def test_version_control_may_be_editable_and_extras_of_an_egg_count(line: str, text: str) -> None:
    assert texts(parse_requirements(line)) == [text]
    named = text if "@ " in text else f"r @ {text}"
    Requirement(named)


@pytest.mark.parametrize(
    ("login", "allowed"),
    [
        ("${USER}:${PASS}", True),
        ("${TOKEN}", True),
        ("__token__:${TOKEN}", True),
        ("${USER}:hunter2", False),
        ("${TOKEN}hunter2", False),
        ("${TOKEN}:", True),
        ("hunter2", False),
        ("user:hunter2${A}", False),
        ("${lower}:${PASS}", False),
        ("${USER}:${PASS}@hunter2", False),
    ],
)
def test_a_login_of_variables_is_no_password(login: str, allowed: bool) -> None:
    for line in (
        f"--index-url https://{login}@h.example.org/simple",
        f"--find-links https://{login}@h.example.org/files/",
        f"foo @ https://{login}@h.example.org/foo-1.0.zip",
        f"foo @ git+https://{login}@h.example.org/foo",
    ):
        if allowed:
            parse_requirements(line)
        else:
            with pytest.raises(RequirementError) as caught:
                parse_requirements(line)
            assert "stored with the job" in caught.value.why or "broken" in caught.value.why
            assert "hunter2" not in str(caught.value)


def test_a_constraints_text_is_named_requirements_and_no_options() -> None:
    entries = parse_constraints("a<2 # why\n-e git+https://h.example.org/r#egg=r[x]\n")
    assert [entry.text for entry in entries] == ["a<2", "r[x] @ git+https://h.example.org/r"]
    for line, why in (
        ("--pre", "options belong in the requirements"),
        ("-e .", STAYS),
        ("-c other.txt", "the field constraints"),
        ("https://h.example.org/x.whl", "has no name"),
        ("numpy scipy", "is not a requirement"),
    ):
        with pytest.raises(RequirementError, match=why) as caught:
            parse_constraints(f"\na<2\n{line}")
        assert caught.value.field == "constraints line 3"


def test_a_continued_line_goes_by_its_first_number() -> None:
    with pytest.raises(RequirementError) as caught:
        parse_requirements("a\nb \\\n --hash=x")
    assert caught.value.field == "requirements line 2"


def test_one_index_only() -> None:
    with pytest.raises(RequirementError, match=r"line 2: .*second index"):
        parse_requirements("-i https://a.example.org\n-i https://b.example.org")


@pytest.mark.parametrize(
    ("text", "lock"),
    [
        ("", False),
        (f"a==1 --hash={SHA256}", True),
        (f"a[x]==1 ; os_name == 'a' --hash={SHA256} --hash={SHA384}", True),
        (f"a==1 --hash={SHA256}\nb @ https://h.example.org/b.whl --hash={SHA256}", True),
        (f"https://h.example.org/b.whl --hash={SHA256}", True),
        ("a==1", False),
        ("--require-hashes\na==1", False),
        (f"a==1 --hash={SHA256}\nb==1", False),
        (f"a==1.* --hash={SHA256}", False),
        (f"a>=1 --hash={SHA256}", False),
        (f"a --hash={SHA256}", False),
        (f"a ; os_name == 'b @ https://h' --hash={SHA256}", False),
        ("https://h.example.org/b.whl", False),
        ("git+https://h.example.org/b", False),
    ],
)
def test_lock(text: str, lock: bool) -> None:
    assert parse_requirements(text).is_lock() is lock


@given(
    st.lists(
        st.tuples(requirements(), st.lists(st.sampled_from([SHA256, SHA384, SHA512]), max_size=2))
    ),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([" ", "{end}    ", " \t"]),
)
def test_a_written_file_reads_back(
    items: list[tuple[str, list[str]]], end: str, between: str
) -> None:
    assume(not any("git+" in text and hashes for text, hashes in items))
    gap = between.replace("{end}", f" \\{end}")
    text = end.join(
        "".join([text, *(f"{gap}--hash={h}" for h in hashes)]) for text, hashes in items
    )
    parsed = parse_requirements(text)
    assert [(entry.text, list(entry.hashes)) for entry in parsed.requirements] == items


@given(st.text() | PIECES | st.text("a1=\\\n\r# -e@:/.\t"))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parsed = parse_requirements(text)
    except RequirementError as error:
        assert re.fullmatch(r"requirements line \d+", error.field)
        return
    for entry in parsed.requirements:
        assert entry.text.replace("\t", " ").isprintable()
        assert not entry.text.startswith("-")


HOSTILE = {
    "blanks": "a" + " " * 500_000 + "x",
    "only blanks": " " * 500_000 + "#",
    "brackets": "[" * 500_000,
    "marker": "a;" + "(" * 500_000,
    "bounds": "a>=1," * 100_000 + "x",
    "name": "a" * 500_000 + "!",
    "addresses": "https://" * 60_000,
    "continuations": "a\\\n" * 100_000,
    "quotes": "'" * 200_001,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_lengths_take_no_time(text: str) -> None:
    begun = time.monotonic()
    for read in (parse_list, parse_requirements, lambda text: check_requirement(text, "f")):
        try:
            read(text)
        except RequirementError:
            pass
    canonical_name(text)
    is_exact(text)
    assert time.monotonic() - begun < 5
