"""Every `stoke ...` command that is written in hints, help texts and pages is one that stoke takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest

from stoke.cli.command_table import COMMANDS, cli
from stoke.remote import hints as remote_hints
from tests.test_hints_followed import templates_in_source

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES.append(ROOT / "stoke/agents/skill.md")
# Not CHANGELOG.md, which names options that were replaced.

OPERATORS = set("|&;<>()")
BEHIND = {"or", "then", "and", "to", "with", "makes"}
"""Words that continue a hint's sentence behind a command."""


def simple_commands(line: str) -> Iterator[list[str]]:
    """The words of each command of stoke's in a shell line."""
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    found: list[str] | None = None
    for word in words:
        if set(word) <= OPERATORS:
            if found is not None:
                yield found
            found = None
        elif found is not None:
            found.append(word)
        elif word == "stoke":
            found = []
    if found is not None:
        yield found


def fault(words: list[str], whole: bool) -> str | None:
    """What stoke's parser says against a command. `whole` is False for one that is only mentioned."""
    words = ["jobs" if word == "COMMAND" else word for word in words if word != "..."]
    command: click.Command = cli
    context = None
    try:
        name: str | None = "stoke"
        while True:
            context = command.make_context(name, words, context)
            if not isinstance(command, click.Group):
                return None
            words = [*context._protected_args, *context.args]
            if command.invoke_without_command and not words:
                return None
            name, found, words = command.resolve_command(context, words)
            assert found is not None
            command = found
    except click.exceptions.Exit:
        return None  # --help and --version
    except click.exceptions.NoArgsIsHelpError:
        return "needs a command" if whole else None
    except click.MissingParameter as error:
        return error.format_message() if whole else None
    except click.UsageError as error:
        return error.format_message()


@pytest.fixture(autouse=True)
def own_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    # Options that set variables are parsed below.
    for name in ("STOKE_ARGO__CONTEXT", "STOKE_ARGO__NAMESPACE"):
        monkeypatch.setenv(name, "")


def in_page(text: str) -> Iterator[tuple[str, bool]]:
    """Each shell line with stoke in it, and whether it is one to be typed."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            if re.match(r"[$#] .*\bstoke ", line):
                yield line[2:], True
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"(?<!`)`(stoke [^`]+)`(?!`)", prose):
        yield " ".join(span.split()), False


PAGE_LINES = [
    pytest.param(line, whole, id=f"{page.stem}: {line}")
    for page in PAGES
    for line, whole in in_page(page.read_text())
]


@pytest.mark.parametrize(("line", "whole"), PAGE_LINES)
def test_a_command_in_a_page(line: str, whole: bool) -> None:
    found = list(simple_commands(line))
    assert found
    for words in found:
        assert fault(words, whole) is None


def in_hint(template: str) -> Iterator[list[str]]:
    """The words of each command in a hint, with X in the places that are filled in."""
    text = re.sub(r"\{\d*\}", "X", re.sub(r"\{[a-z]+\}", "", template))
    for start in re.finditer(r"(?<![\w-])stoke(?= [a-z-])", text):
        words: list[str] = []
        for word in text[start.end() :].split():
            if word in BEHIND:
                break
            words.append(word.rstrip(",;.)"))
            if word[-1] in ",;.)":
                break
        if words:
            yield words


REMOTE = [text for text, *_ in remote_hints._TABLE.values()]
HINTS = [
    pytest.param(words, id=" ".join(words))
    for template in [*templates_in_source(), *REMOTE]
    for words in in_hint(template)
]


@pytest.mark.parametrize("words", HINTS)
def test_a_command_in_a_hint(words: list[str]) -> None:
    # The name of the job is added where the hint is printed.
    assert fault(words, whole=words != ["rerun"]) is None


def commands_of(command: click.Command) -> Iterator[click.Command]:
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from commands_of(one)


HELP = [
    line.strip()
    for module, _ in COMMANDS.values()
    for command in commands_of(import_module(module).command)
    for line in f"{command.help}\n{command.epilog}".splitlines()
    if line.strip().startswith("stoke ")
]


@pytest.mark.parametrize("line", HELP)
def test_an_example_in_a_help_text(line: str) -> None:
    for words in simple_commands(line):
        assert fault(words, whole=True) is None


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("stoke run --nothing x.py", "No such option"),
        ("stoke runs x.py", "No such command"),
        ("stoke cache prun", "No such command"),
        ("stoke cache prune --lru", "No such option"),
        ("stoke stop", "Missing argument"),
        ("cat x | stoke render yaml -", "is not one of"),
    ],
)
def test_a_wrong_command_is_found(line: str, says: str) -> None:
    (words,) = simple_commands(line)
    assert says in (fault(words, whole=True) or "")
    assert list(in_hint(f"try it: {line}, or not")) == [words]


def test_there_are_commands_to_look_at() -> None:
    assert len(PAGE_LINES) > 100 and len(HINTS) > 20 and len(HELP) > 20
