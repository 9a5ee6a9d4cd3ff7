"""Code in files: decoded as Python would, and back."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.source_code import declared_encoding, decode_code
from stoke.request.sources import read_code, request_from_options

NOTEBOOK = '{"cells": [{"cell_type": "code", "source": ["print(1)"]}], "nbformat": 4}'


@given(
    st.sampled_from(["", "\ufeff", "# coding: latin-1\n", "#!/x\r\n# -*- coding: cp1252 -*-\r\n"]),
    st.text(st.characters(max_codepoint=0xFF, exclude_characters="\0\x81\x8d\x8f\x90\x9d")),
)
@example("# coding: utf-8\n", "é")
@example("\ufeff# coding: utf-8\n", "é")
def test_decoded_code_is_written_as_the_same_bytes(head: str, text: str) -> None:
    code = head + text
    encoding = declared_encoding(code)
    try:
        data = code.encode(encoding)
    except UnicodeEncodeError:
        return  # Such text is refused.
    assert decode_code(data, "x.py") == code


def test_an_encoding_is_found_as_python_finds_it() -> None:
    for code in (
        "# coding: latin-1\nx = 'é'",
        "\n# coding: latin-1\nx = 'é'",
        "# first\n#coding=cp1252\nx = 'é'",
    ):
        data = code.encode("latin-1")
        assert ast.literal_eval(ast.parse(data).body[0].value) == "é"  # type: ignore[attr-defined]
        assert decode_code(data, "x.py") == code
    # The second line counts only behind a comment or an empty one.
    assert declared_encoding("x = 1\n# coding: latin-1\n") == "utf-8"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("x = 'é'\n".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\x02\x01\x01\0", "not Python code: it is a program"),
        (b"PK\x03\x04\x14\0", "not Python code: it is a zip archive"),
        (b"\x1f\x8b\x08\x08", "not Python code: it is compressed"),
        (b"print(1)\0", "not Python code: it holds NUL bytes"),
        (b"# coding: nonsense\n1", "unknown encoding: nonsense"),
        (b"\xef\xbb\xbf# coding: latin-1\n1", "coding declaration that is wrong"),
        (b"# coding: rot13\n1", "cannot hold Python code"),
        (b"# coding: utf-16\n12", "cannot hold Python code"),
        (b"# coding: ascii\nx = '\xe9'\n", "is not ASCII at line 2"),
        (b"a\nb\nx = '\xe9'\n", r"is not UTF-8 at line 3 \(byte 0xe9\)"),
    ],
)
def test_code_that_python_cannot_read_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        decode_code(data, "x.py")
    assert caught.value.field == "x.py"
    if why.startswith("is not UTF-8"):
        # The hint, followed.
        line = (caught.value.hint or "").partition("example: ")[2].encode()
        assert "é" in decode_code(line + b"\n" + data, "x.py")


def test_text_that_its_declaration_cannot_hold_is_refused_with_its_line() -> None:
    with pytest.raises(RequestError, match="'€' in line 3, which iso-8859-1") as caught:
        request_from_options(code="# coding: latin-1\n\nprint('€')\n")
    assert caught.value.field == "code"
    assert request_from_options(code="# coding: utf-8\n\nprint('€')\n").code


@pytest.mark.parametrize("name", ["nb.ipynb", "nb.py"])
def test_a_notebook_is_no_code(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\ufeff" + NOTEBOOK, encoding="utf-8")
    with pytest.raises(RequestError, match="is a Jupyter notebook") as caught:
        read_code(path)
    assert "convert it: stoke render code" in (caught.value.hint or "")
    with pytest.raises(RequestError, match="is a Jupyter notebook") as caught:
        request_from_options(code=NOTEBOOK)
    assert caught.value.field == "code"


@pytest.mark.parametrize(
    "code", ["{'cells': 1, 'nbformat': 4}", '{"cells": []}', "{}", "[1]", '{"a": 1}']
)
def test_other_expressions_are_code(code: str) -> None:
    assert request_from_options(code=code).code == code
