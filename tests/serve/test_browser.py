"""The screens in a real browser: submit a job, watch its log, reload the page, close it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import Job, JobState
from tests.lab import until
from tests.serve.chromium import CONTROL, Page, chromium
from tests.serve.served import serving
from tests.serve.test_sessions import processes, until_gone

WELCOME = "runs Python somewhere else"
# The job goes on once the gate is there.
CODE = """\
import pathlib, time
print("<b id='bold'>first</b>" + " line", flush=True)
while not pathlib.Path({gate!r}).exists():
    time.sleep(0.02)
print("last" + " line")
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("STOKE_TEST_CHROMIUM"):
            pytest.fail("STOKE_TEST_CHROMIUM is set and chromium is not installed", pytrace=False)
        pytest.skip("chromium is not installed")
    with chromium(program, tmp_path_factory.mktemp("chromium")) as port:
        yield port


def only_job() -> Job:
    history = History(read_only=True)
    try:
        (job,) = history.list()
        return job
    finally:
        history.close()


def succeeded() -> bool:
    return only_job().state is JobState.SUCCEEDED


def footers(page: Page) -> list[bool]:
    """For each footer that is shown, whether it is in the last row."""
    rows = page.screen.split("\n")
    return [row == len(rows) - 1 for row, text in enumerate(rows) if "Next error" in text]


def submit(page: Page, gate: Path) -> None:
    """Write a job in New job and submit it; return once its log has begun."""
    page.shows(WELCOME)
    page.press("2")
    page.shows("Python code")
    page.paste(CODE.format(gate=str(gate)))
    page.shows("pathlib.Path(")
    page.press("r", CONTROL)
    page.shows("first</b> line")


def test_submit_watch_and_reload(browser: int, secret: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with serving() as address:
        page = Page(browser, address)
        page.log_in(secret)
        submit(page, gate)
        # Text of a job is text.
        assert page.evaluate("document.getElementById('bold') === null") is True
        pids = processes()
        page.picture(tmp_path / "log.png")

        page.ask("Page.reload")
        page.shows("first</b> line")
        assert processes() == pids, "the same screens, without another login"
        until(lambda: footers(page) == [True], "one footer, in the last row")
        page.picture(tmp_path / "reloaded.png")

        gate.touch()
        page.shows("last line")
        until(succeeded, "the end of the job")
        assert page.complaints == []
        page.close()


def test_a_closed_page_ends_its_screens_and_the_job_goes_on(
    browser: int, secret: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    with serving(linger=0.3) as address:
        page = Page(browser, address)
        page.log_in(secret)
        submit(page, gate)
        pids = processes()
        page.close()
        until_gone(pids)
        assert only_job().state is JobState.RUNNING
        gate.touch()
        again = Page(browser, address)
        # The browser still has its login.
        again.shows("last line")
        assert succeeded()
        again.close()


def test_programs_cannot_read_the_clipboard_or_open_pages(browser: int, secret: str) -> None:
    with serving() as address:
        page = Page(browser, address)
        page.log_in(secret)
        page.shows(WELCOME)
        page.evaluate(
            """
            globalThis.sent = []; globalThis.asked = []; globalThis.opened = [];
            send = (bytes) => sent.push(new TextDecoder().decode(bytes));
            globalThis.confirm = (text) => { asked.push(text); return true; };
            globalThis.open = (...all) => { opened.push(all); };
            terminal.write("\\x1b]52;c;?\\x07\\x1b]52;c;%%%\\x07\\x1b]0;<b>x</b>\\x07", () => {
                globalThis.drawn = true;
            });
            """
        )
        page.until("globalThis.drawn === true")
        assert page.evaluate("sent.join('')") == ""
        assert page.evaluate("document.title") == "stoke"
        for link in ("javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "//x", "x"):
            page.evaluate(f"openLink({link!r})")
        assert page.evaluate("asked.length + opened.length") == 0
        page.evaluate("openLink('https://example.org/a')")
        assert page.evaluate("JSON.stringify([asked, opened])") == (
            '[["Open https://example.org/a?"],'
            '[["https://example.org/a","_blank","noopener,noreferrer"]]]'
        )
        page.close()


def test_a_wrong_token_is_refused_on_the_page(browser: int, secret: str) -> None:
    with serving() as address:
        page = Page(browser, address)
        # A browser that was used before may still have a login of another server.
        page.evaluate("localStorage.clear()")
        page.ask("Page.reload")
        page.until("document.activeElement === part('token') && part('problem').textContent === ''")
        page.log_in("stoke_<b>wrong</b>")
        page.until("part('problem').textContent.startsWith('The token is unknown.')")
        assert page.evaluate("part('token').value") == ""
        page.evaluate(
            """
            globalThis.announced = 0;
            new MutationObserver(() => { announced += part("problem").textContent !== ""; })
                .observe(part("problem"), { childList: true });
            globalThis.emptied = 0;
            new MutationObserver(() => { emptied += part("problem").textContent === ""; })
                .observe(part("problem"), { childList: true });
            """
        )
        page.log_in("stoke_wrong")
        page.until("emptied === 1 && announced === 1")
        page.log_in(secret)
        page.shows(WELCOME)
        page.evaluate("fetch('/logout', { method: 'POST' })")
        page.until("part('problem').textContent === 'This login has ended.'")
        page.ask("Page.reload")
        page.until("globalThis.announced === undefined")
        page.until("part('problem').textContent === 'This login has ended.'")
        page.close()


def test_the_keyboard_reaches_the_button_of_a_notice(browser: int, secret: str) -> None:
    with serving() as address:
        page = Page(browser, address)
        page.log_in(secret)
        page.shows(WELCOME)
        page.press("q", CONTROL)
        page.until("document.activeElement === part('action')")
        page.press("Enter")
        page.shows("New job")
        page.until("document.activeElement === terminal.textarea")
        page.close()


def test_a_hidden_tab_stays_connected_and_a_dead_server_is_noticed(
    browser: int, secret: str
) -> None:
    with serving() as address:
        page = Page(browser, address)
        page.log_in(secret)
        page.shows(WELCOME)
        # Browsers run the timers of a hidden tab once a minute.
        timers = "globalThis.ticks = []; globalThis.setInterval = (tick) => ticks.push(tick);"
        page.ask("Page.addScriptToEvaluateOnNewDocument", source=timers)
        page.ask("Page.reload")
        page.until("ticks.length > 0 && isOpen()")
        page.evaluate(
            """
            globalThis.mine = socket; globalThis.pongs = 0; globalThis.late = 0;
            mine.addEventListener("message", ({ data }) => { pongs += data === '{"pong": true}'; });
            globalThis.now = Date.now; Date.now = () => now() + late;
            globalThis.pass = () => { late += 60000; ticks.forEach((tick) => tick()); };
            """
        )
        for pongs in (1, 2, 3, 4):
            page.evaluate("pass()")
            page.until(f"pongs === {pongs}")
        assert page.evaluate("socket === mine") is True
        page.evaluate("mine.onmessage = null; for (const _ of [1, 2, 3, 4]) pass();")
        assert page.evaluate("socket === mine") is False
        page.close()
