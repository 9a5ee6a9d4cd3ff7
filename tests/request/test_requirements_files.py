"""Requirements files with the files that they name: merged, relative to each, with clear errors."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.requirements_files import RequirementsTexts, read_requirements
from stoke.request.requirements_text import parse_constraints, parse_requirements
from stoke.request.sources import request_from_options

SHA = "sha256:" + "0a" * 32
Write = Callable[[str, str], str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes a file below the current folder and returns its path."""
    monkeypatch.chdir(tmp_path)

    def do(name: str, text: str) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return do


def meant(texts: RequirementsTexts) -> tuple[list[str], list[str]]:
    parsed = parse_requirements(texts.requirements)
    constraints = parse_constraints(texts.constraints)
    return [entry.text for entry in parsed.requirements], [entry.text for entry in constraints]


def refused(*sources: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        read_requirements(sources)
    return caught.value


@given(st.lists(st.sampled_from(["six", "# c", "", "idna==3.7", "--pre"]), max_size=5))
def test_a_file_that_names_no_other_is_its_own_text(lines: list[str]) -> None:
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".txt") as file:
        text = "\r\n".join(lines)
        file.write(text.encode())
        file.flush()
        assert read_requirements([file.name]) == RequirementsTexts(text, "")


def test_nested_files_are_relative_to_the_file_that_names_them(write: Write) -> None:
    write("sub/dev.txt", "-r ../base.txt\npytest\n")
    write("sub/limits.txt", "pytest<9\n-c more.txt\n")
    write("sub/more.txt", "six<2\n-r even.txt")
    write("sub/even.txt", "idna<4")
    write("base.txt", "--pre\nidna \\\n  >=3\n-c sub/limits.txt\n")
    top = write("top.txt", "numpy\n--requirement=sub/dev.txt\n-r 'with blank.txt' # why\nscipy\n")
    write("with blank.txt", "-e git+https://h.example.org/r\n")
    texts = read_requirements([top])
    assert meant(texts) == (
        ["numpy", "idna   >=3", "pytest", "git+https://h.example.org/r", "scipy"],
        ["pytest<9", "six<2", "idna<4"],
    )
    assert parse_requirements(texts.requirements).options == ("--pre",)
    # Where the lines are from is there to be read.
    assert "# --requirement=sub/dev.txt\n# -r ../base.txt\n--pre\n" in texts.requirements


def test_several_files_all_count(write: Write) -> None:
    write("c.txt", "idna<4")
    texts = read_requirements([write("base.txt", "six"), write("dev.txt", "-c c.txt\nidna")])
    assert meant(texts) == (["six", "idna"], ["idna<4"])
    assert read_requirements([]) == RequirementsTexts("", "")


def test_options_of_a_constraints_file_count_as_the_requirements_do(write: Write) -> None:
    write("c.txt", "--extra-index-url https://h.example.org/simple\nsix<2 # why\n")
    texts = read_requirements([write("r.txt", "-c c.txt\nsix\n")])
    assert meant(texts) == (["six"], ["six<2"])
    assert parse_requirements(texts.requirements).extra_indexes == ("https://h.example.org/simple",)


def test_a_variable_in_a_name_is_this_processs(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("prod.txt", "six")
    top = write("top.txt", "idna\n-r ${STAGE}.txt\n")
    error = refused(top)
    assert (error.field, error.hint) == ("top.txt line 2", "export STAGE=...")
    monkeypatch.setenv("STAGE", "prod")
    assert meant(read_requirements([top]))[0] == ["idna", "six"]


@pytest.mark.parametrize(
    ("files", "field", "why"),
    [
        ({"a": "six\n-r missing"}, "a line 2", "missing cannot be read: No such file"),
        ({"a": "-c missing"}, "a line 1", "missing cannot be read: No such file"),
        ({"a": "-r b", "b": "\n\n./x\n"}, "b line 3", "does not travel"),
        ({"a": "-c b", "b": "six\nsix six"}, "b line 2", "is not a requirement"),
        ({"a": "-c b", "b": "six\n-e ."}, "b line 2", "does not travel"),
        ({"a": "-c b", "b": "--trusted-host h"}, "b line 1", "not known here"),
        ({"a": "-r b", "b": "six\n-r c", "c": "-r ./a"}, "c line 1", "a cycle"),
        ({"a": "-r a"}, "a line 1", "a cycle"),
        ({"a": "-c a"}, "a line 1", "a cycle"),
        ({"a": "-r"}, "a line 1", "names no file"),
        ({"a": "-r 'b"}, "a line 1", "cannot be read: No closing quotation"),
        ({"a": "-r b --pre"}, "a line 1", "a second option"),
        ({"a": "--pre -r b"}, "a line 1", "a line of its own"),
        ({"a": "-r /dev/zero"}, "a line 1", "is longer than 8 MiB"),
        ({"a": "-r ftp://h.example.org/x"}, "a line 1", "begins with https"),
        ({"a": "-r https://u:hunter2@h.example.org/x"}, "a line 1", "stored with the job"),
        ({"a": "-r b", "b": "[[package]]\n"}, "b line 1", "has no sections"),
        ({"a": "-r poetry.lock", "poetry.lock": "x"}, "a line 1", "is a lockfile of Poetry's"),
    ],
)
def test_an_error_names_file_line_and_reason(
    write: Write, files: dict[str, str], field: str, why: str
) -> None:
    for name, text in files.items():
        write(name, text)
    error = refused("a")
    assert error.field == field and why in error.why
    assert "hunter2" not in str(error)


def test_depth_and_number_of_files_are_bounded(write: Write) -> None:
    for number in range(30):
        write(f"{number}.txt", f"-r {number + 1}.txt\n")
    assert "deeper than 20" in refused("0.txt").why
    # Each file doubles the next: without a bound, 2 to the 15th.
    for number in range(15):
        write(f"wide{number}.txt", f"-r wide{number + 1}.txt\n" * 2)
    write("wide15.txt", "six")
    assert "more than 200 files" in refused("wide0.txt").why


def test_standard_input_is_relative_to_the_current_folder_and_read_once(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io
    import sys

    write("base.txt", "six\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"idna\n-r base.txt\n-r nope")))
    error = refused("-")
    assert error.field == "standard input line 3"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"idna\n-r base.txt\n")))
    assert meant(read_requirements(["-"]))[0] == ["idna", "six"]
    assert "once only" in refused("-", "-").why


@pytest.fixture
def site(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "site"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_addresses_name_others_relative_to_themselves(
    write: Write, site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("site/deep/r.txt", "six\n-r ../base.txt\n")
    write("site/base.txt", "idna\n-c /limits/c.txt\n")
    write("site/limits/c.txt", "idna<4\n")
    top = write("top.txt", f"-r {site}/deep/r.txt\n")
    assert meant(read_requirements([top])) == (["six", "idna"], ["idna<4"])
    assert meant(read_requirements([f"{site}/deep/r.txt"]))[0] == ["six", "idna"]
    write("site/base.txt", "-r file:///etc/hostname\n")
    assert "file of this machine" in refused(top).why
    write("site/base.txt", "-c gone.txt\n")
    error = refused(top)
    assert (error.field, "HTTP 404" in error.why) == (f"{site}/base.txt line 1", True)
    # A login by variables is read here and is not part of the text.
    monkeypatch.setenv("LOGIN", "hunter2")
    address = site.replace("://", "://${LOGIN}:${LOGIN}@")
    write("site/base.txt", "")
    texts = read_requirements([write("top.txt", f"-r {address}/deep/r.txt\n")])
    assert "hunter2" not in texts.requirements and meant(texts)[0] == ["six"]


def test_a_file_that_names_no_file_of_this_machine_may_be_local(write: Write) -> None:
    path = Path(write("base file.txt", "six")).absolute()
    top = write("top.txt", f"-r {path.as_uri()}\n")
    assert meant(read_requirements([top]))[0] == ["six"]


def test_a_request_with_read_requirements_survives_its_json(write: Write) -> None:
    write("c.txt", "six<2\n")
    texts = read_requirements([write("r.txt", f"-c c.txt\nsix==1.16.0 --hash={SHA}\n")])
    spec = request_from_options(
        code="1", requirements=texts.requirements, constraints=texts.constraints
    )
    assert request_from_options(**spec.model_dump(mode="json")) == spec


# --- complete locks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "field", "why"),
    [
        (
            {"requirements": f"six==1.16.0 --hash={SHA}\nidna>=3 --hash={SHA}\n"},
            "requirements", "line 2, 'idna>=3'",
        ),
        ({"requirements": "six==1.16.0\n"}, "requirements", "hashed"),
        ({"requirements": ""}, "requirements", "names no package"),
        (
            {"requirements": f"six==1 --hash={SHA}", "dependencies": ["idna"]},
            "dependencies", "complete",
        ),
        ({"requirements": f"six==1 --hash={SHA}", "constraints": "six<2"}, "constraints", "complete"),
        (
            {
                "requirements": f"six==1 --hash={SHA}",
                "code": "# /// script\n# dependencies = ['idna']\n# ///\n",
            },
            "dependencies",
            "own metadata",
        ),
    ],
)  # fmt: skip
def test_a_lock_that_is_not_complete_is_refused(
    fields: dict[str, object], field: str, why: str
) -> None:
    with pytest.raises(RequestError) as caught:
        request_from_options(**{"code": "1", "locked": True, **fields})
    assert caught.value.field == field and why in caught.value.why


def test_an_unset_variable_is_reported_at_its_own_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at a line of the text that the files make together."""
    monkeypatch.delenv("STOKE_TEST_UNSET", raising=False)
    inner = tmp_path / "inner.txt"
    inner.write_text(
        "# ${STOKE_TEST_UNSET}\nsix\npkg @ https://h.example/${STOKE_TEST_UNSET}/p-1.zip\n"
    )
    outer = tmp_path / "outer.txt"
    outer.write_text("attrs\nrich\n-r inner.txt\n")
    with pytest.raises(RequestError) as caught:
        read_requirements([str(outer)])
    assert caught.value.field == f"{inner} line 3"
    assert caught.value.hint == "export STOKE_TEST_UNSET=..."
    with pytest.raises(RequestError) as caught:
        read_requirements([], [str(inner)])
    assert caught.value.field == f"{inner} line 3"


def test_constraints_are_read_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "bounds.txt"
    file.write_text("a<1\n# why\nb<2")
    found = read_requirements(["/dev/null"], [str(file)])
    assert found.constraints == file.read_text() and found.requirements == ""
