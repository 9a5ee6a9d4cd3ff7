"""How the runner understands messages of uv and Nix, and what it keeps of a tool's output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoke.remote.events import MAX_FRAME, EventScanner
from stoke.remote.runner.errors import PhaseError
from stoke.remote.runner.event_writer import EventWriter
from stoke.remote.runner.files import cache_trouble
from stoke.remote.runner.tools import ToolOutput
from stoke.remote.runner.uv_report import UvReport
from tests.package_index import PackageIndex
from tests.remote.test_runner_pythons import NO_INDEX, Runner

FOREIGN = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n")),
        st.sampled_from(
            [
                "error: error sending request for url (http://index/simple/x/)",
                "  cause: error sending request for url (http://index/simple/x/)",
                "  cause: No space left on device (os error 28)",
                "hint: Packages were unavailable because the network was disabled",
                "[stderr]",
                "warning: x",
                "",
            ]
        ),
    ),
    max_size=12,
)


@given(FOREIGN)
@example(["  cause: error sending request for url (http://index/simple/x/)"])
def test_the_output_of_a_build_is_never_read_as_events(lines: list[str]) -> None:
    printed = "\n".join(" " * 9 + line if line else "" for line in lines)
    report = UvReport(
        "DEBUG something\n"
        "error: Failed to build `x==1`\n"
        "  cause: The build backend returned an error\n"
        "  cause: Call to `backend.build_wheel` failed (exit status: 1)\n"
        "\n         [stdout]\n" + printed + "\n\n"
        "hint: Build failures usually indicate a problem with the package\n"
    )
    assert report.unreached() == ("", None)
    assert report.failed_call() == (None, None)
    assert report.warnings == []
    assert report.hint() is None
    assert report.summary.split("\n") == [
        "Failed to build `x==1`",
        "The build backend returned an error",
        "Call to `backend.build_wheel` failed (exit status: 1)",
    ]
    for line in lines:
        assert line.rstrip() in report.output


@pytest.mark.parametrize(
    ("hint", "ours", "advice"),
    [
        ("Build failures usually indicate a problem with the package", None, ""),
        (
            "Pre-releases are available for `early` in the requested range (e.g., 1.0rc1), but "
            "pre-releases weren't enabled (try: `--prerelease=allow`)",
            ("pre-release", "early", "1.0rc1"),
            "",
        ),
        ("`early` was requested with a pre-release marker (e.g., early>1.0rc1), but pre-releases "
         "weren't enabled (try: `--prerelease=allow`)", ("pre-line", "early"), ""),
        (
            "`six` was found on http://one/simple, but not at the requested version (six==2). A "
            "compatible version may be available on a subsequent index (e.g., http://two/simple).",
            ("index-order", "six", "http://one/simple", "http://two/simple"),
            "",
        ),
        ("Consider enabling use of system TLS certificates with the `--system-certs` flag", None, ""),
        ("An index (x) returned a 403 Forbidden error. Use `ignore-error-codes` in "
         "`[[tool.uv.index]]`.", None, "An index (x) returned a 403 Forbidden error."),
        (
            "You require CPython 3.13 (`cp313`), but we only found wheels for `spam-eggs` (v1.0) "
            "with the following Python ABI tag: `cp39`",
            None,
            "You require CPython 3.13 (`cp313`), but we only found wheels for `spam-eggs` (v1.0) "
            "with the following Python ABI tag: `cp39`",
        ),
    ],
)  # fmt: skip
def test_only_hints_that_work_in_stoke_are_passed_on(
    hint: str, ours: tuple[str, ...] | None, advice: str
) -> None:
    report = UvReport(
        f"error: No solution found when resolving\n  cause: Because x\n\nhint: {hint}\n"
    )
    assert report.summary == "no solution: Because x"
    assert report.hint() == ours
    assert report.advice() == advice


def test_errors_of_older_uv_versions_are_understood() -> None:
    report = UvReport(
        "  \N{MULTIPLICATION SIGN} Failed to download `six==1`\n"
        "  ├─▶ Failed to fetch: `https://index/six/`\n"
        "  ├─▶ error sending request for url (https://index/six/)\n"
        "  ╰─▶ Connection refused (os error 111)\n"
    )
    assert report.unreached()[0] == "https://index/six/"
    older = UvReport(
        "error: Failed to fetch: `https://index/six/`\n"
        "  Caused by: error sending request for url (https://index/six/)\n"
        "  Caused by: Connection refused (os error 111)\n"
    )
    assert older.unreached()[0] == "https://index/six/"


@given(st.lists(st.binary(max_size=60).map(lambda text: text.replace(b"\n", b" ")), max_size=40),
       st.integers(1, 50))  # fmt: skip
def test_the_output_of_a_tool_is_complete_in_any_pieces(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    output = ToolOutput()
    for at in range(0, len(data), size):
        output.add(data[at : at + size])
    kept = [line for line in lines if not line.startswith((b"DEBUG ", b"TRACE "))]
    assert output.text() == b"".join(line + b"\n" for line in kept).decode(errors="replace")


def test_of_100_megabytes_of_output_the_beginning_and_the_end_are_kept() -> None:
    output = ToolOutput()
    output.add(b"error: Failed to build `x==1`\n  cause: The build failed\n\n         [stdout]\n")
    lines = 1_250_000
    for first in range(0, lines, 1000):
        output.add(b"".join(b"         line %070d\n" % n for n in range(first, first + 1000)))
    output.add(b"\nhint: Build failures usually indicate a problem\n")
    text = output.text()
    assert len(text) < ToolOutput.FIRST + ToolOutput.LAST + 200
    report = UvReport(text)
    assert report.summary == "Failed to build `x==1`\nThe build failed"
    kept = report.output.split("\n")
    assert kept[0] == "[stdout]" and kept[1].endswith(" " + "0" * 70)
    assert kept[-1] == f"line {lines - 1:070d}"
    (mark,) = [line for line in kept if not line.startswith("line ")][1:]
    left_out = int(mark.split()[1])
    assert left_out + sum(len(line) + 10 for line in kept[1:] if line != mark) == lines * 85


@given(st.text(max_size=6000), st.text(max_size=9000))
@example("t" * 5000, "\N{SNAKE}" * 9000)
@example("\n" * 900, "long\n" * 900)
def test_an_error_is_one_frame_after_its_output(text: str, output: str) -> None:
    written = bytearray()
    events = EventWriter("n0nce", ["hidden-word"], False, lambda _, data: written.extend(data))
    events.error("lock", PhaseError("hidden-word " + text, None, output))
    scanner = EventScanner("n0nce")
    *before, event = scanner.feed(bytes(written))
    assert isinstance(event, dict) and event["event"] == "error"
    assert event["text"].startswith("*** ")
    assert len(json.dumps(event)) < min(MAX_FRAME, 4000)
    said = b"".join(piece for piece in before if isinstance(piece, bytes)).decode()
    if output.strip("\n"):
        assert output.rstrip("\n").encode(errors="replace").decode() in said
        assert event["tail"].split("\n")[-1][-10:] in output


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("small", ["cache", "work"])
def test_the_hint_names_the_disk_that_is_full(tmp_path: Path, small: str) -> None:
    index = PackageIndex("127.0.0.1")
    index.add("heavy", "1.0", size=4_000_000)
    runner = Runner(sys.executable, tmp_path)
    (tmp_path / small).mkdir()
    mounted = str(tmp_path / small)
    # The runner's own files fit into 8 KiB; the lock of the package does not.
    size = "1m" if small == "cache" else "8k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", mounted], check=True)
    try:
        code, _, _, events = runner.run(
            "print('never')",
            requirements=["heavy", *(f"# {'x' * 4000}" for _ in range(3))],
            index={**NO_INDEX, "url": index.url},
        )
    finally:
        subprocess.run(["umount", "--lazy", mounted], check=True)
        index.stop()
    (error,) = [event for event in events if event["event"] == "error"]
    assert code == 125
    if small == "cache":
        assert error["hint"] == ["prune-python"]
    else:
        hint, path = error["hint"]
        assert hint == "free-space" and path.startswith(str(tmp_path / "work"))


def test_a_folder_with_the_caches_name_as_prefix_is_not_in_the_cache(tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    assert cache_trouble(FileNotFoundError(2, "gone", f"{cache}/venvs"), cache)
    assert cache_trouble(NotADirectoryError(20, "a file", str(tmp_path)), cache)
    assert cache_trouble(PermissionError(13, "no", f"{cache}-of-another/x"), cache) is None
    assert cache_trouble(PhaseError("Permission denied"), cache) is None
    assert cache_trouble(OSError(28, "No space left on device"), str(tmp_path)) is None


@pytest.mark.parametrize(
    ("settings", "named", "why"),
    [
        ({"url": "http://nothing.invalid/simple"}, "nothing.invalid", "dns error"),
        (
            {"url": "https://index.test/simple", "proxy": "http://127.0.0.1:9"},
            "index.test",
            "Connection refused",
        ),
    ],
    ids=["no such host", "no such proxy"],
)
def test_network_errors_are_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], named: str, why: str
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    runner = Runner(sys.executable, tmp_path)
    code, _, err, events = runner.run("1", requirements=["alpha"], index={**NO_INDEX, **settings})
    (error,) = [event for event in events if event["event"] == "error"]
    assert (code, err) == (125, b"")
    assert error["text"].startswith(f"{named} could not be reached")
    assert why in error["text"] and error["hint"] == ["check-network"]
