"""Notebooks: converted to scripts, and refused where a script cannot do the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request.notebook import notebook_to_script
from stoke.request.sources import read_code_or_notebook


def notebook(*sources: str | list[str], **more: Any) -> bytes:
    cells = [{"cell_type": "code", "source": source, "outputs": []} for source in sources]
    return json.dumps({"cells": cells, "nbformat": 4, "metadata": {}, **more}).encode()


def test_code_cells_become_a_script_in_their_order() -> None:
    data = json.loads(notebook(["import os\n", "print(1)"], "", "x = '''\n%time\n'''\nx\n"))
    data["cells"].insert(1, {"cell_type": "markdown", "source": "# %% words"})
    data["cells"].append({"cell_type": "raw", "source": "raw"})
    assert notebook_to_script(json.dumps(data).encode(), "x.ipynb") == (
        "# %%\nimport os\nprint(1)\n\n# %%\nx = '''\n%time\n'''\nx\n"
    )


def test_a_python_file_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("print(1)")
    assert read_code_or_notebook(tmp_path / "a.py") == "print(1)"
    (tmp_path / "nb.txt").write_bytes(notebook("print(2)"))
    assert read_code_or_notebook(tmp_path / "nb.txt") == "# %%\nprint(2)\n"


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("import os\n%matplotlib inline", "line 2: '%matplotlib inline'"),
        ("!ls -l", "line 1: '!ls -l'"),
        ("files = !ls", "line 1: 'files = !ls'"),
        ("\n%%bash\nls", "line 1: '%%bash'"),
        ("print?", r"line 1: 'print\?'"),
        ("?print", r"line 1: '\?print'"),
        ("x = 1\nif x:\n    %time x", "line 3: '%time x'"),
    ],
)
def test_a_command_of_ipython_is_refused_with_its_line(source: str, line: str) -> None:
    with pytest.raises(RequestError, match=f"command of IPython in cell 2, {line}") as caught:
        notebook_to_script(notebook("1", source), "x.ipynb")
    assert caught.value.field == "x.ipynb"


def test_a_syntax_error_stays_the_codes_own() -> None:
    assert notebook_to_script(notebook("print(1"), "x.ipynb") == "# %%\nprint(1\n"
    assert notebook_to_script(notebook("x = 7 \\\n% 3"), "x.ipynb") == "# %%\nx = 7 \\\n% 3\n"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "is not a notebook"),
        (b"\xff\xfe", "is not a notebook"),
        (b"[]", "has no cells"),
        (b'{"cells": []}', "has no cells"),
        (b'{"cells": {}, "nbformat": 4}', "older than 4"),
        (b'{"worksheets": [], "nbformat": 3}', "older than 4"),
        (notebook(), "without code"),
        (notebook(" \n"), "without code"),
        (notebook("1", metadata={"kernelspec": {"language": "R"}}), "notebook in R"),
        (notebook("1", metadata={"language_info": {"name": "julia"}}), "notebook in julia"),
        (b'{"cells": [{"cell_type": "code", "source": [1]}], "nbformat": 4}', "cell 1 is not text"),
        (b'{"cells": ' + b"[" * 100 + b"]" * 100 + b', "nbformat": 4}', "nested too deeply"),
        (notebook("await f()"), "await outside of a function in cell 1"),
    ],
)
def test_what_is_no_notebook_for_a_script_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why):
        notebook_to_script(data, "x.ipynb")


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda one: (
            st.lists(one)
            | st.dictionaries(
                st.sampled_from(
                    ["cells", "cell_type", "source", "metadata", "language_info", "name"]
                ),
                one,
            )
        ),
    )
)
def test_any_json_is_converted_or_refused(document: Any) -> None:
    data = json.dumps({"nbformat": 4, "cells": [document], "metadata": document}).encode()
    try:
        assert notebook_to_script(data, "x.ipynb").startswith("# %%\n")
    except RequestError as error:
        assert error.field == "x.ipynb"
