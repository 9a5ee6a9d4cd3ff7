"""The screens behind a connection: reconnecting, limits, and that no process stays."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websocket import ABNF

from stoke.api.tokens import TokenFile
from stoke.serve import app, sessions
from stoke.serve.terminal import environment
from stoke.serve.terminal_modes import TerminalModes
from tests.lab import until
from tests.serve.served import Browser, Tab, alive, children, command_line, serving
from tests.serve.test_access import STOKE, audit

WELCOME = b"runs Python somewhere else"
NEW_JOB = b"Request"
JOBS = b"No jobs yet"


def processes() -> list[int]:
    """The processes of the screens that this process serves, without those of their jobs."""
    names = (b"stoke.serve.terminal", b"import program; program()")
    lines = {pid: command_line(pid) for pid in children(os.getpid())}
    return [pid for pid, line in lines.items() if any(name in line for name in names)]


def until_gone(pids: list[int]) -> None:
    until(lambda: not any(map(alive, pids)), f"the end of {pids}")


def opened(browser: Browser, session: str = "") -> Tab:
    tab = browser.open(session)
    tab.until(WELCOME)
    return tab


def close_welcome(tab: Tab) -> None:
    before = len(tab.screen)
    tab.type("\x1b")
    tab.until(JOBS, before)  # Drawn again, no longer dim.


def test_a_closed_tab_ends_its_screens_after_a_while(secret: str) -> None:
    with serving(linger=0.3) as address:
        tab = opened(Browser(address, secret))
        pids = processes()
        assert len(pids) == 2
        tab.close()
        until_gone(pids)
        until(lambda: audit()[-1].get("event") == "screens ended", "the line in the audit log")
    first, last = (one for one in audit() if "event" in one)
    assert first["event"] == "screens opened" and first["token"] == last["token"] == "browser"


def test_a_tab_comes_back_to_the_same_screen(secret: str) -> None:
    with serving() as address:
        browser = Browser(address, secret)
        tab = opened(browser)
        tab.type("2")
        tab.until(NEW_JOB)
        pids = processes()
        tab.close()
        again = browser.open(tab.session)
        again.until(NEW_JOB)
        assert again.hello == {"session": tab.session, "is_new": False}
        # The new terminal has the modes of the first: full screen, mouse, marked pastes.
        for mode in (1049, 1003, 1006, 2004):
            assert b"\x1b[?%dh" % mode in again.screen
        assert processes() == pids
        again.close()


def test_screens_in_a_browser_cannot_be_suspended(secret: str) -> None:
    with serving() as address:
        tab = opened(Browser(address, secret))
        close_welcome(tab)
        tab.type("\x1a2")
        tab.until(NEW_JOB)
        tab.close()


def test_the_newest_tab_has_the_screens(secret: str) -> None:
    with serving() as address:
        browser = Browser(address, secret)
        first = opened(browser)
        second = browser.open(first.session)
        assert first.closed() == sessions.REPLACED
        second.until(WELCOME)
        close_welcome(second)
        second.close()


def test_screens_that_end_say_so_and_others_can_be_opened(secret: str) -> None:
    with serving() as address:
        browser = Browser(address, secret)
        tab = opened(browser)
        close_welcome(tab)
        tab.type("q")
        assert tab.closed() == sessions.ENDED
        again = browser.open(tab.session)
        assert again.session != tab.session and again.hello is not None and again.hello["is_new"]
        again.close()


def test_no_more_screens_than_allowed(secret: str) -> None:
    with serving(sessions=1) as address:
        browser = Browser(address, secret)
        first = opened(browser)
        refused = browser.open()
        assert refused.closed() == sessions.TOO_MANY and refused.reason == "1"
        pids = processes()
        first.close()  # Nobody looks at its screens, so they make room.
        second = browser.open()
        second.until(JOBS)
        until_gone(pids)
        second.close()


def test_screens_belong_to_a_login(secret: str) -> None:
    with serving() as address:
        mine = opened(Browser(address, secret))
        other = Browser(address, secret).open(mine.session)
        assert other.session != mine.session
        for tab in (mine, other):
            tab.close()


@pytest.mark.parametrize("key", ["", "x", "\ud800"])
def test_a_cookie_without_the_key_of_the_page_opens_nothing(secret: str, key: str) -> None:
    with serving() as address:
        tab = Browser(address, secret).open(key=key)
        assert tab.closed() == sessions.LOGGED_OUT and processes() == []


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "{}", "[" * 4000, "{" + " " * 5000 + "}", '{"key": "a", "rows": 2}']
)
def test_a_wrong_first_message_ends_the_connection(secret: str, text: str) -> None:
    with serving() as address:
        socket = Browser(address, secret).connect()
        socket.send(text)
        assert socket.recv_data() == (ABNF.OPCODE_CLOSE, (1008).to_bytes(2, "big"))
        assert processes() == []


def test_a_connection_without_a_first_message_is_ended(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "HELLO_SECONDS", 0.2)
    with serving() as address:
        socket = Browser(address, secret).connect()
        assert socket.recv_data() == (ABNF.OPCODE_CLOSE, (1008).to_bytes(2, "big"))


def test_hostile_messages_end_nothing_but_their_connection(secret: str) -> None:
    with serving() as address:
        browser = Browser(address, secret)
        tab = opened(browser)
        for text in ("x", "[]", '{"rows": 1e9, "columns": 2}', '{"rows": -5, "columns": 99999999}'):
            tab.socket.send(text)
        tab.type("")
        tab.tell({"rows": 30, "columns": 100})
        tab.tell({"ping": True})
        until(lambda: tab.answers == [{"pong": True}], "the answer")
        close_welcome(tab)
        tab.type(b"x" * (2 << 20))
        assert tab.closed() in (0, 1009)
        again = browser.open(tab.session)
        again.until(JOBS)
        again.close()


@pytest.mark.parametrize("way", ["token", "logout"])
def test_a_login_that_ends_takes_its_screens_along(
    secret: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "CHECK_SECONDS", 0.1)
    with serving() as address:
        browser = Browser(address, secret)
        tab = opened(browser)
        pids = processes()
        if way == "token":
            TokenFile().remove("browser")
        else:
            browser.web.post(f"{address}/logout", headers={"Origin": address}, timeout=30)
        assert tab.closed() == sessions.LOGGED_OUT
        until_gone(pids)


def test_a_browser_that_reads_nothing_holds_up_no_other(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions, "CLOSE_SECONDS", 0.5)
    with serving() as address:
        browser = Browser(address, secret)
        stuck = browser.connect()
        stuck.send(f'{{"key": "{browser.key}", "rows": 300, "columns": 900}}')
        session = json.loads(stuck.recv())["session"]
        for size in range(400):  # Each draws all of it.
            stuck.send(f'{{"rows": {100 + size % 200}, "columns": 900}}')
        other = browser.open()
        other.until(JOBS)
        again = browser.open(session)
        again.until(JOBS)
        other.close()
        again.close()


def test_a_server_that_stops_leaves_no_process(secret: str) -> None:
    with serving() as address:
        tab = opened(Browser(address, secret))
        pids = processes()
    assert not any(map(alive, pids))
    assert tab.closed() in (1001, 1012)


@contextmanager
def program() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The installed program and its address."""
    process = subprocess.Popen(
        [STOKE, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    try:
        found = re.search(r"at (http://\S+);", process.stderr.readline())
        assert found
        yield process, found[1]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_the_end_of_the_program_ends_the_screens(secret: str, signal: str) -> None:
    with program() as (process, address):
        tab = opened(Browser(address, secret))
        pids = children(process.pid)
        assert len(pids) == 2
        subprocess.run(["kill", f"-{signal}", str(process.pid)], check=True)
        process.wait(30)
        until_gone(pids)
        tab.closed()


# --- the terminal ---------------------------------------------------------------------------------


def test_the_screens_know_nothing_of_the_desktop_of_the_server() -> None:
    given = {"DISPLAY": ":0", "TMUX": "x", "COLUMNS": "3", "TERM": "dumb", "EDITOR": "vi"}
    found = environment(given)
    assert not found.keys() & {"DISPLAY", "TMUX", "COLUMNS"}
    assert found["TERM"] == "xterm-256color" and found["EDITOR"] == "vi"


def test_the_screens_have_a_terminal_of_their_own(secret: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stoke.serve.terminal", "24", "80"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0 and done.stderr == b""


def test_modes_are_found_wherever_the_output_is_cut() -> None:
    output = b"\x1b[?1049h\x1b[?1003;1006h text \x1b[?25l\x1b[?2026h\x1b[?2026l\x1b[?1003l\x1b[2J"
    wanted = b"\x1b[?1049h\x1b[?1003l\x1b[?1006h\x1b[?25l"
    for size in range(1, len(output) + 1):
        modes = TerminalModes()
        for at in range(0, len(output), size):
            modes.feed(output[at : at + size])
        assert modes.restoring() == wanted, size


def test_a_program_that_sets_every_mode_takes_little_memory() -> None:
    modes = TerminalModes()
    modes.feed(b"".join(b"\x1b[?%dh" % mode for mode in range(5000)))
    modes.feed(b"\x1b[?" + b"1;" * 100_000)
    assert len(modes.restoring()) < 1000


def test_the_rest_of_the_program_loads_no_server() -> None:
    from tests.test_import_hygiene import loaded_by

    code = "import stoke.cli.commands.serve, stoke.cli.commands.api"
    assert not loaded_by(code) & {"starlette", "uvicorn", "websockets", "pydantic"}
    assert Path(app.__file__).exists()
