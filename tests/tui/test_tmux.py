"""The program in tmux, with real keys."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stoke.history.database import History
from stoke.history.job import JobState
from tests.tui.conftest import WAIT_SECONDS
from tests.tui.test_terminal import STOKE

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="needs tmux")

CODE = "for n in range(3000): print('line', n, 'even' if n % 2 == 0 else 'odd')"


class Tmux:
    """A tmux server without configuration, with a shell in a window of 120 x 40."""

    def __init__(self, socket: Path) -> None:
        self._command = ["tmux", "-f", "/dev/null", "-S", str(socket)]
        self.run("new-session", "-d", "-s", "test", "-x", "120", "-y", "40", "sh")
        # The prompt of the shell must differ from everything that the program shows.
        self.keys("PS1='at the shell: '", "Enter")

    def run(self, *arguments: str) -> str:
        command = [*self._command, *arguments]
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout

    def keys(self, *keys: str) -> None:
        self.run("send-keys", "-t", "test", *keys)

    def type(self, text: str) -> None:
        self.run("send-keys", "-t", "test", "-l", text)

    def shown(self) -> str:
        return self.run("capture-pane", "-p", "-t", "test")

    def until(self, pattern: str) -> str:
        return self._until(lambda shown: re.search(pattern, shown) is not None, pattern)

    def until_without(self, text: str) -> str:
        """Wait for a drawn screen that does not show `text`; a blank one would not do either."""
        return self.until(rf"(?s)\A(?!.*{text}).*stoke")

    def until_shows(self, screen: str) -> None:
        self._until(lambda shown: shown == screen, screen)

    def _until(self, true: Callable[[str], bool], what: str) -> str:
        deadline = time.monotonic() + WAIT_SECONDS
        while not true(shown := self.shown()):
            assert time.monotonic() < deadline, f"never came: {what}\n{shown}"
            time.sleep(0.05)
        return shown

    def start(self) -> None:
        quoted = " ".join(f"'{part}'" for part in STOKE)
        self.type(quoted)
        self.keys("Enter")
        self.until("4 Metrics")

    def close(self) -> None:
        subprocess.run([*self._command, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def tmux(tmp_path: Path) -> Iterator[Tmux]:
    made = Tmux(tmp_path / "tmux")
    yield made
    made.close()


def test_a_job_from_the_form_to_its_filtered_log(tmux: Tmux) -> None:
    tmux.start()
    tmux.until("No jobs yet")
    tmux.keys("2")
    tmux.until("Python code")
    tmux.type(CODE)
    tmux.until("print")
    tmux.keys("C-r")
    tmux.until("line 2999 odd")
    tmux.until("succeeded")
    tmux.keys("&")
    tmux.until("show matching lines only")
    tmux.type("even")
    tmux.keys("Enter")
    tmux.until("1,500 of 3,000 lines")
    assert "odd" not in tmux.until("line 2998 even")
    tmux.keys("Escape")
    tmux.until("line 2999 odd")
    tmux.keys("q")
    tmux.until(r"at the shell:\s*\Z")


def test_quitting_while_a_job_runs_tells_how_to_return(tmux: Tmux) -> None:
    tmux.start()
    tmux.keys("2")
    tmux.until("Python code")
    tmux.type("import time; print('begun', flush=True); time.sleep(600)")
    tmux.keys("C-r")
    tmux.until("begun *\n|begun +│")
    tmux.keys("q")
    shown = tmux.until("open the screens again with: stoke")
    assert "is running; watch it with: stoke logs -f" in shown
    tmux.start()
    tmux.until("running")
    # Cancel has the focus, so enter does not stop the job.
    tmux.keys("s")
    tmux.until("Cancel")
    tmux.keys("Enter")
    tmux.until_without("Cancel")
    tmux.keys("s")
    tmux.until("Cancel")
    tmux.keys("Tab", "Enter")
    tmux.until("stopped")


def test_a_small_window_and_a_dialog_leave_nothing_behind(tmux: Tmux) -> None:
    """A smaller terminal attaches to the session and detaches again."""
    tmux.start()
    before = tmux.until(r"(?s)stoke run -c 'print\(1\)'.*Quit")
    tmux.run("resize-window", "-t", "test", "-x", "20", "-y", "5")
    tmux.until_without("4 Metrics")
    tmux.run("resize-window", "-t", "test", "-x", "120", "-y", "40")
    tmux.until_shows(before)
    tmux.keys("?")
    tmux.until("Keys: Jobs")
    tmux.keys("Escape")
    tmux.until_shows(before)
    tmux.keys("C-l")
    tmux.until_shows(before)


def test_the_terminals_size_overrides_exported_columns_and_lines(tmux: Tmux) -> None:
    tmux.type("export COLUMNS=60 LINES=10")
    tmux.keys("Enter")
    tmux.start()
    tmux.until("━0 jobs━{100,}")
    tmux.run("resize-window", "-t", "test", "-x", "100", "-y", "30")
    tmux.until("(?m)━0 jobs━{80,95} *$")


def test_the_whole_screen_is_redrawn_after_an_editor(tmux: Tmux, tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\necho 'written = elsewhere' >> \"$1\"\n")
    editor.chmod(0o755)
    tmux.type(f"export EDITOR={editor} VISUAL={editor}")
    tmux.keys("Enter")
    tmux.start()
    tmux.keys("2")
    tmux.until("Python code")
    tmux.keys("C-e")
    tmux.until(r"(?s)4 Metrics.*written = elsewhere.*packages")


def test_a_shell_in_a_job_steps_aside_and_comes_back(tmux: Tmux) -> None:
    tmux.start()
    tmux.keys("2")
    tmux.until("Python code")
    tmux.type("import time; print('begun', flush=True); time.sleep(600)")
    tmux.keys("C-r")
    tmux.until("begun *\n|begun +│")
    with History() as history:
        (job,) = history.list()
    try:
        before = tmux.until("running")
        tmux.keys("1")
        tmux.keys("!")
        tmux.until("its end brings the screens back")
        tmux.until("files# *\n")
        tmux.type("echo in''side; stty size")
        tmux.keys("Enter")
        tmux.until("(?m)^inside *\n40 120")
        tmux.type("exit")
        tmux.keys("Enter")
        after = tmux.until(r"(?s)4 Metrics.*running")
        assert "inside" not in after
        assert job.id in before
    finally:
        subprocess.run([*STOKE, "stop", "--now", job.id], capture_output=True, check=True)


def test_a_new_shell_has_the_environment_of_the_form(tmux: Tmux) -> None:
    tmux.start()
    tmux.keys("2")
    tmux.until("Python code")
    tmux.type("print('the code is not run')")
    tmux.until("the code is not run")
    tmux.keys("F12")
    tmux.until("its end brings the screens back")
    tmux.until("# *\\n")
    tmux.type("echo in''side $STOKE_JOB_ID; stty size; exit 3")
    tmux.keys("Enter")
    after = tmux.until(r"(?s)4 Metrics.*the code is not run")
    assert "inside" not in after
    with History() as history:
        (job,) = history.list()
    assert (job.name, job.exit_code) == ("shell", 3)


def test_a_session_that_is_killed_leaves_its_job(tmux: Tmux) -> None:
    tmux.start()
    tmux.keys("2")
    tmux.until("Python code")
    tmux.type("import time; print('begun', flush=True); time.sleep(600)")
    tmux.keys("C-r")
    tmux.until("begun *\n|begun +│")
    tmux.close()
    with History() as history:
        (job,) = history.list()
    try:
        assert job.state is JobState.RUNNING
        again = Tmux(Path(f"{tmux._command[-1]}2"))
        try:
            again.start()
            again.until("begun *\n|begun +│")
            again.until("running")
        finally:
            again.close()
    finally:
        subprocess.run([*STOKE, "stop", "--now", job.id], capture_output=True, check=True)
