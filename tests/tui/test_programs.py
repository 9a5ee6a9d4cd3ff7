"""The commands in $PAGER, $VISUAL and $EDITOR."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stoke.errors import EngineError
from tests.hints import is_hint
from tui.terminal.programs import editor, pager


@pytest.mark.parametrize("wanted", ["less 'a", 'less "', "less \\", "\x1b[2Jless '"])
def test_an_open_quote_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch, wanted: str
) -> None:
    monkeypatch.setenv("PAGER", wanted)
    with pytest.raises(EngineError, match=r"the pager in \$PAGER is no command") as caught:
        pager()
    assert "\x1b" not in caught.value.what
    is_hint(caught.value.hint, "name another: export {}=...")


@pytest.mark.parametrize("wanted", ["", " ", "\t\n", "''"])
def test_a_blank_variable_never_runs_the_file_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str
) -> None:
    monkeypatch.setenv("EDITOR", wanted)
    monkeypatch.delenv("VISUAL", raising=False)
    try:
        command = editor().command
    except EngineError as error:
        assert "is installed" in error.what or "is no command" in error.what
    else:
        assert command in (["nano"], ["vi"])


@pytest.mark.parametrize(
    "wanted", [f"{sys.executable} -c 'raise SystemExit(1)'", "/no/such/program", "/"]
)
def test_a_program_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wanted: str
) -> None:
    monkeypatch.setenv("PAGER", wanted)
    with pytest.raises(EngineError, match=r"the pager .* failed"):
        pager().open(tmp_path / "log")


def test_words_are_those_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAGER", "'/a b/less' -R \"$HOME\" ; touch x")
    assert pager().command == ["/a b/less", "-R", "$HOME", ";", "touch", "x"]
