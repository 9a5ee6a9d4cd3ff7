"""`stoke schedule` with the real crontab program, whose crontabs are in a folder of the test."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from stoke.history.database import History
from stoke.history.job import Job
from tests.cli.conftest import Stoke
from tests.hints import command, is_hint
from tests.lab import until
from tests.terminals import PROGRAM

OTHERS = (
    b"# mine\nMAILTO=ada@example.org\n5 5 * * *\techo 50\\% done  \n\n"
    b"@daily true # stoke schedules\n"
)
SPOOL = "/var/spool/cron/crontabs"
IN_NAMESPACE = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]


class Cron:
    """The crontab of a test: the real programs see a folder of the test in place of the machine's."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.programs = folder / "spool", folder / "programs"
        self.spool.mkdir()
        shutil.chown(self.spool, group="crontab")
        self.spool.chmod(0o1730)
        self.programs.mkdir()
        wrapper = self.programs / "crontab"
        wrapper.write_text(f'#!/bin/sh\nexec {self.inside("/usr/bin/crontab")} "$@"\n')
        wrapper.chmod(0o755)

    def inside(self, program: str) -> str:
        mount = f"mount --bind {shlex.quote(str(self.spool))} {SPOOL} && mount -t tmpfs none /run"
        return shlex.join([*IN_NAMESPACE, f'{mount} && exec {program} "$@"', "sh"])

    def write(self, data: bytes) -> None:
        subprocess.run([self.programs / "crontab", "-"], input=data, check=True)

    def read(self) -> bytes:
        return subprocess.run([self.programs / "crontab", "-l"], capture_output=True).stdout

    def line(self) -> str:
        """The line of the only schedule."""
        (line,) = [one for one in self.read().splitlines() if b" # stoke schedule " in one]
        return line.decode()

    def run_line(self) -> None:
        """Run the line of the only schedule as cron does: by sh, in the home folder, with four
        variables."""
        text = self.line().split(maxsplit=5)[5].replace("\\%", "%")
        done = subprocess.run(
            ["/bin/sh", "-c", text],
            env={"PATH": "/usr/bin:/bin", "HOME": "/", "SHELL": "/bin/sh", "LOGNAME": "x"},
            cwd="/",
            capture_output=True,
            timeout=120,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b""), "cron mails any output"


@pytest.fixture
def cron(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cron:
    if not Path("/usr/bin/crontab").exists():
        pytest.skip("the program crontab is not installed")
    if subprocess.run([*IN_NAMESPACE, "mount -t tmpfs none /run"], capture_output=True).returncode:
        pytest.skip("this user may not mount folders")
    cron = Cron(tmp_path)
    # Without systemctl, which may find a user instance.
    monkeypatch.setenv("PATH", f"{cron.programs}:{without_systemctl(tmp_path)}")
    return cron


def without_systemctl(folder: Path) -> Path:
    """A folder with the programs of this machine but systemctl and crontab."""
    programs = folder / "others"
    programs.mkdir(exist_ok=True)
    for path in reversed(os.environ["PATH"].split(":")):
        for one in Path(path).glob("*"):
            if one.name not in ("systemctl", "crontab"):
                (programs / one.name).unlink(missing_ok=True)
                (programs / one.name).symlink_to(one)
    return programs


@pytest.fixture
def script(own_home: Path) -> Path:
    path = own_home / "train.py"
    path.write_text("print('recorded')\n")
    return path


Add = Callable[..., str]


@pytest.fixture
def add(stoke: Stoke, cron: Cron) -> Add:
    def run(*words: str, cron: str = "0 3 * * *", env: dict[str, str] | None = None) -> str:
        done = stoke("schedule", "add", "--cron", cron, *words, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    return run


def listed(stoke: Stoke) -> list[dict[str, Any]]:
    found = json.loads(stoke("schedule", "list", "--json").stdout)
    assert isinstance(found, list)
    return found


def jobs() -> list[Job]:
    """The newest job first."""
    with History() as history:
        return history.list()


def output(stoke: Stoke, job: Job) -> str:
    until(
        lambda: b'"state": "succeeded"' in stoke("show", "--json", job.id).stdout, "the job's end"
    )
    return stoke("logs", job.id).stdout.decode()


def error(done: subprocess.CompletedProcess[bytes]) -> tuple[str, str | None]:
    lines = done.stderr.decode().splitlines()
    hint = [line.removeprefix("hint: ") for line in lines if line.startswith("hint: ")]
    (what,) = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return what, hint[0] if hint else None


# ---------------------------------------------------------------------------- the crontab


def test_the_other_lines_of_the_crontab_stay_byte_for_byte(
    cron: Cron, add: Add, stoke: Stoke, script: Path
) -> None:
    cron.write(OTHERS)
    assert add(str(script), "--text", "50% 'of' \"it\"; rm -rf ~ $(id)") == "train"
    line = cron.line()
    assert cron.read() == OTHERS + line.encode() + b"\n"
    assert line.startswith("0 3 * * * env STOKE_STATE_DIR=")
    assert line.endswith(f"{PROGRAM} schedule run --quiet train # stoke schedule train")
    stoke("schedule", "pause", "train")
    assert cron.read() == OTHERS
    stoke("schedule", "resume", "train")
    assert cron.read() == OTHERS + line.encode() + b"\n"
    assert stoke("schedule", "remove", "train").returncode == 0
    assert cron.read() == OTHERS
    assert listed(stoke) == []


def test_a_user_without_a_crontab_has_none_afterwards(
    cron: Cron, add: Add, stoke: Stoke, script: Path
) -> None:
    add(str(script))
    stoke("schedule", "rm", "train")
    assert list(cron.spool.iterdir()) == []


def test_schedules_that_are_added_at_once_are_all_there(
    cron: Cron, add: Add, stoke: Stoke, script: Path, own_home: Path
) -> None:
    cron.write(OTHERS)
    names = [f"one-{number}" for number in range(6)]

    def place(name: str) -> str:
        # Each second one has another state folder, so that no file in it keeps them apart.
        other = str(own_home / "state-b") if name[-1] in "024" else str(own_home / "state")
        return add("--name", name, str(script), env={"STOKE_STATE_DIR": other})

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(place, names)) == names
    lines = cron.read()
    assert lines.startswith(OTHERS)
    assert sorted(line.split()[-1].decode() for line in lines.splitlines()[5:]) == names
    assert {one["state"] for one in listed(stoke)} == {"active"} and len(listed(stoke)) == 3


def test_a_schedule_of_the_same_name_in_another_state_folder_is_left_alone(
    cron: Cron, add: Add, stoke: Stoke, script: Path, own_home: Path
) -> None:
    other = {"STOKE_STATE_DIR": str(own_home / "100% 'other'")}
    add(str(script))
    first = cron.read()
    add(str(script), env=other)
    assert cron.read().startswith(first) and len(cron.read().splitlines()) == 2
    assert listed(stoke)[0]["state"] == "active"
    stoke("schedule", "remove", "train")
    cron.run_line()
    assert json.loads(stoke("schedule", "list", "--json", env=other).stdout)[0]["last_run"]["job"]
    stoke("schedule", "remove", "train", env=other)
    assert cron.read() == b""


def test_a_line_that_is_gone_is_shown_and_made_again(
    cron: Cron, add: Add, stoke: Stoke, script: Path
) -> None:
    add(str(script))
    line = cron.read()
    cron.write(OTHERS)
    assert listed(stoke)[0]["state"] == "missing" and listed(stoke)[0]["next_run"] is None
    stoke("schedule", "resume", "train")
    assert listed(stoke)[0]["state"] == "active"
    assert cron.read() == OTHERS + line


def test_the_real_daemon_runs_a_schedule(
    cron: Cron, add: Add, stoke: Stoke, script: Path, start: Callable[..., object]
) -> None:
    if not Path("/usr/sbin/cron").exists():
        pytest.skip("the daemon cron is not installed")
    add("--name", "minutely", str(script), cron="* * * * *")
    daemon = subprocess.Popen(shlex.split(cron.inside("/usr/sbin/cron -f")))
    try:
        until(lambda: bool(listed(stoke)[0]["last_run"]), "a run", 150)
    finally:
        daemon.terminate()
        daemon.wait()
    (job,) = jobs()
    assert output(stoke, job) == "recorded\n"
    assert job.schedule == "minutely" and job.name == "minutely"


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--cron", "0 25 * * *"), "--cron: hour: 25 is not from 0 to 23"),
        (("--cron", "0 3 * *"), "--cron: '0 3 * *' has 4 fields of 5"),
        (("--cron", "@daily", "--name", "Über"), "--name: 'Über' is not the name of a schedule"),
        (("--cron", "@daily", "--timezone", "Berlin"), "--timezone: 'Berlin' is not a timezone"),
        (("--cron", "@daily", "--memory", "much"), "--memory: 'much'"),
    ],
)
def test_a_wrong_schedule_is_refused_before_anything_is_written(
    cron: Cron, stoke: Stoke, script: Path, own_home: Path, words: tuple[str, ...], what: str
) -> None:
    done = stoke("schedule", "add", *words, str(script))
    assert done.returncode == 2 and what in error(done)[0]
    assert cron.read() == b"" and not list(own_home.glob("state/schedules/[!.]*"))


def test_a_timezone_needs_systemd(cron: Cron, stoke: Stoke, script: Path) -> None:
    words = ["schedule", "add", "--cron", "0 3 * * *", "--timezone", "Europe/Berlin", str(script)]
    done = stoke(*words)
    is_hint(error(done)[1], "leave it out, and write --cron in the time of this machine")
    assert listed(stoke) == [] and cron.read() == b""
    assert stoke(*words[:4], *words[6:]).returncode == 0


def test_a_name_is_given_once(cron: Cron, add: Add, stoke: Stoke, script: Path) -> None:
    add(str(script))
    line = cron.read()
    done = stoke("schedule", "add", "--cron", "@daily", str(script))
    assert error(done)[0] == "name: there is a schedule train already"
    hint = "choose another name, or remove that one: stoke schedule remove {}"
    assert cron.read() == line
    assert stoke(*command(is_hint(error(done)[1], hint))).returncode == 0
    add(str(script), cron="@daily")


def test_an_unknown_name_and_a_damaged_schedule(
    cron: Cron, add: Add, stoke: Stoke, script: Path, own_home: Path
) -> None:
    for verb in ("pause", "resume", "remove", "run"):
        done = stoke("schedule", verb, "../train")
        assert done.returncode == 2
        assert (
            stoke(*command(is_hint(error(done)[1], "list them: stoke schedule list"))).stdout == b""
        )
    add(str(script))
    (own_home / "state/schedules/train/schedule.json").write_text('{"name": 1}')
    assert b"it is damaged" in stoke("schedule", "list").stderr
    done = stoke("schedule", "run", "train")
    hint = is_hint(error(done)[1], "remove it, and add it again: stoke schedule remove {}")
    assert stoke(*command(hint)).returncode == 0
    assert cron.read() == b"" and listed(stoke) == []


def test_a_machine_without_systemd_and_crontab(
    stoke: Stoke, script: Path, tmp_path: Path, own_home: Path
) -> None:
    env = {"PATH": str(without_systemctl(tmp_path))}
    done = stoke("schedule", "add", "--cron", "@daily", str(script), env=env)
    assert done.returncode == 125
    assert error(done)[0].startswith("neither a user instance of systemd nor the program crontab")
    assert not (own_home / "state/schedules").exists()


def test_a_state_folder_that_no_line_can_hold(
    cron: Cron, stoke: Stoke, script: Path, own_home: Path
) -> None:
    env = {"STOKE_STATE_DIR": str(own_home / "two\nlines")}
    done = stoke("schedule", "add", "--cron", "@daily", str(script), env=env)
    assert "has characters that neither a crontab nor a unit can hold" in error(done)[0]
    assert cron.read() == b""
    assert json.loads(stoke("schedule", "list", "--json", env=env).stdout) == []


def test_a_secret_in_a_variable_is_refused_and_one_in_a_file_is_read(
    cron: Cron, add: Add, stoke: Stoke, own_home: Path
) -> None:
    words = ["schedule", "add", "--cron", "@daily", "--name", "secret"]
    code = "import os; print(os.environ['LOGIN'])"
    done = stoke(*words, "--secret", "LOGIN=env:LOGIN", "-c", code, env={"LOGIN": "x"})
    assert error(done)[0] == "--secret LOGIN: a schedule's runs do not have the variable LOGIN"
    (own_home / "login").write_text("from the file\n")
    hint = "put the value into a file that only you can read, and name it: file:/path"
    named = is_hint(error(done)[1], hint).split()[-1].replace("/path", str(own_home / "login"))
    assert stoke(*words, "--secret", f"LOGIN={named}", "-c", code).returncode == 0
    cron.run_line()
    assert output(stoke, jobs()[0]) == "from the file\n"


# ---------------------------------------------------------------------------- runs


def test_a_run_takes_code_and_files_as_they_were(
    cron: Cron, add: Add, stoke: Stoke, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    (project / "helper.py").write_text("WORD = 'recorded'\n")
    (project / "go.py").write_text("import helper, sys; print(helper.WORD, *sys.argv[1:])\n")
    add(str(project / "go.py"), "50%", "it's")
    add("--fresh", "--name", "newest", str(project / "go.py"))
    (project / "helper.py").write_text("WORD = 'edited'\n")
    (project / "go.py").write_text("import helper; print('and', helper.WORD)\n")
    assert stoke("schedule", "run", "newest").returncode == 0
    assert output(stoke, jobs()[0]) == "and edited\n"
    shutil.rmtree(project)
    shown = stoke("schedule", "run", "go").stdout.decode().strip()
    assert jobs()[0].id == shown and output(stoke, jobs()[0]) == "recorded 50% it's\n"
    assert b"schedule      go: stoke schedule list" in stoke("show", shown).stdout
    assert json.loads(stoke("show", "--json", shown).stdout)["schedule"] == "go"
    done = stoke("schedule", "run", "newest")
    assert done.returncode == 2
    last = {one["name"]: one["last_run"] for one in listed(stoke)}
    assert last["newest"]["result"] == "failed" and "go.py" in last["newest"]["why"]
    assert last["go"] | {"at": 0} == {
        "at": 0, "result": "begun", "job": shown, "job_state": "succeeded", "why": None
    }  # fmt: skip


def test_fresh_needs_something_that_can_change(cron: Cron, stoke: Stoke, script: Path) -> None:
    done = stoke("schedule", "add", "--cron", "@daily", "--fresh", "--no-folder", "-c", "pass")
    assert error(done)[0].startswith("--fresh: the request has no file")
    hint = "leave it out, or name a file: stoke schedule add --cron @daily --fresh FILE"
    words = command(is_hint(error(done)[1], hint))
    assert stoke(*[str(script) if word == "FILE" else word for word in words]).returncode == 0
    assert listed(stoke)[0]["fresh"] is True
    script.write_text("print('edited')\n")
    cron.run_line()
    assert output(stoke, jobs()[0]) == "edited\n"


def test_a_run_is_skipped_while_an_earlier_one_runs(
    cron: Cron, add: Add, stoke: Stoke, own_home: Path
) -> None:
    gate = own_home / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    add("--name", "slow", "-c", code)
    cron.run_line()
    cron.run_line()
    (job,) = jobs()
    assert listed(stoke)[0]["last_run"]["result"] == "skipped"
    assert job.id in listed(stoke)[0]["last_run"]["why"]
    done = stoke("schedule", "run", "slow")
    assert (done.returncode, done.stdout) == (0, b"") and job.id.encode() in done.stderr
    gate.touch()
    assert output(stoke, job) == ""
    cron.run_line()
    assert len(jobs()) == 2


def test_a_run_has_the_settings_of_the_shell_that_added_it(
    cron: Cron, add: Add, stoke: Stoke, own_home: Path
) -> None:
    env = {
        "STOKE_SCOPE": "nightly",
        "UV_INDEX_MINE_PASSWORD": "hidden-value",
        "LC_TIME": "C.UTF-8",
    }
    code = "import os; print(*(os.environ.get(n) for n in ('LC_TIME', 'HOME', 'LOGNAME')))"
    words = ["schedule", "add", "--cron", "@daily", "--name", "env", "-c", code]
    assert stoke(*words, env=env).returncode == 0
    stored = (own_home / "state/schedules/env/schedule.json").read_text()
    assert "hidden-value" not in stored
    assert (own_home / "state/schedules/env/schedule.json").stat().st_mode & 0o077 == 0
    cron.run_line()
    (job,) = jobs()
    assert job.scope == "nightly"
    assert output(stoke, job) == f"C.UTF-8 {os.environ['HOME']} x\n"


@pytest.mark.docker
def test_a_run_in_docker(
    cron: Cron, add: Add, stoke: Stoke, own_home: Path, docker_image: str, docker_scope: str
) -> None:
    script = own_home / "there.py"
    script.write_text("import os; print(os.path.exists('/.dockerenv'))")
    add("-b", "docker", "--image", docker_image, "--scope", docker_scope, str(script))
    script.unlink()
    cron.run_line()
    (job,) = jobs()
    assert (job.backend, output(stoke, job)) == ("docker", "True\n")


def test_a_run_that_cannot_begin_says_why(
    cron: Cron, add: Add, stoke: Stoke, own_home: Path
) -> None:
    secret = own_home / "secret"
    secret.write_text("x")
    add("--name", "needs", "--secret", f"LOGIN=file:{secret}", "-c", "pass")
    secret.unlink()
    done = stoke("schedule", "run", "--quiet", "needs")
    assert done.returncode == 2 and str(secret) in error(done)[0]
    last = listed(stoke)[0]["last_run"]
    assert (last["result"], last["job"]) == ("failed", None) and str(secret) in last["why"]


# ---------------------------------------------------------------------------- systemd

SYSTEMCTL_STANDIN = f"""#!{sys.executable}
# A stand-in for systemctl --user where no user instance of systemd runs: it notes what is enabled.
import pathlib, sys
words = sys.argv[2:]
enabled = pathlib.Path(__file__).parent / "enabled"
with open(enabled.with_name("calls"), "a") as calls:
    print(*words, file=calls)
if words[0] == "enable":
    enabled.write_text(words[-1])
elif words[0] == "disable":
    enabled.unlink(missing_ok=True)
elif words[0] == "is-enabled":
    sys.exit(not (enabled.exists() and enabled.read_text() == words[-1]))
"""


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the units; a stand-in for systemctl answers."""
    programs = tmp_path / "systemd-standin"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL_STANDIN)
    (programs / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{without_systemctl(tmp_path)}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config/systemd/user"


def test_units_of_systemd(
    systemd: Path, stoke: Stoke, script: Path, own_home: Path, tmp_path: Path
) -> None:
    state = own_home / '50% "state" $HOME'
    env = {"STOKE_STATE_DIR": str(state)}
    words = ["--cron", "30 3 13 * fri", "--timezone", "Europe/Berlin", str(script), "a b"]
    done = stoke("schedule", "add", *words, env=env)
    assert done.returncode == 0, done.stderr
    service = systemd / "stoke-schedule-train.service"
    timer = systemd / "stoke-schedule-train.timer"
    lines = timer.read_text().splitlines()
    assert [line for line in lines if line.startswith("OnCalendar")] == [
        "OnCalendar=*-*-13 3:30:00 Europe/Berlin",
        "OnCalendar=Fri *-*-* 3:30:00 Europe/Berlin",
    ]
    assert "Persistent=true" in lines
    text = service.read_text()
    assert f'ExecStart="{PROGRAM}" "schedule" "run" "--quiet" "train"' in text.splitlines()
    assert "KillMode=process" in text, "or systemd would end the job with the command that began it"
    if shutil.which("systemd-analyze"):
        checked = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", service, timer],
            capture_output=True,
            env={"SYSTEMD_LOG_LEVEL": "info", "PATH": os.environ["PATH"]},
        )
        ours = [line for line in checked.stderr.splitlines() if b"stoke-schedule" in line]
        assert (checked.returncode, ours) == (0, [])
    shown = json.loads(stoke("schedule", "list", "--json", env=env).stdout)[0]
    assert (shown["state"], shown["started_by"]) == ("active", "systemd")
    stoke("schedule", "pause", "train", env=env)
    assert not timer.exists() and not service.exists()
    stoke("schedule", "resume", "train", env=env)
    assert timer.exists()
    calls = (tmp_path / "systemd-standin/calls").read_text().splitlines()
    # A timer that is switched on again makes up for no run that it missed.
    assert calls[-2:] == [
        "clean --what=state stoke-schedule-train.timer",
        "enable --now stoke-schedule-train.timer",
    ]
    done = stoke("schedule", "add", "--cron", "@daily", str(script))
    assert "belongs to a schedule in another state folder" in error(done)[0]
    flag = is_hint(error(done)[1], "choose another name: --name NAME").split()[-2]
    assert stoke("schedule", "add", "--cron", "@daily", flag, "x", str(script)).returncode == 0
    assert stoke("schedule", "remove", "train", env=env).returncode == 0
    assert sorted(one.name for one in systemd.iterdir()) == [
        "stoke-schedule-x.service",
        "stoke-schedule-x.timer",
    ]
