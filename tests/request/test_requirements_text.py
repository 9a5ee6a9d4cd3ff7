"""Reading the text of requirements and constraints files."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from stoke.request.requirement import RequirementError, canonical_name, check_requirement, is_exact
from stoke.request.requirement_list import parse_list
from stoke.request.requirements_text import (
    Entry,
    ParsedRequirements,
    parse_constraints,
    parse_requirements,
)
from tests.request.requirement_strategies import PIECES, STAYS, requirements

SHA256 = "sha256:" + "0a" * 32
SHA384 = "sha384:" + "1b" * 48
SHA512 = "sha512:" + "2c" * 64


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


def test_a_continued_line_has_the_number_of_its_first() -> None:
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
