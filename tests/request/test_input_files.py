"""Files, pipes, devices and addresses that a request names: bounded, and decoded by their marks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoke.errors import RequestError
from stoke.request import input_files
from stoke.request.input_files import decode_requirements, read_input, read_web

TEXT = "idna==3.7  # café, 日本\r\nsix\n"


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert read_input(str(path), 10) == b"x" * 10
    with pytest.raises(RequestError, match="is longer than") as caught:
        read_input(str(path), 9)
    assert caught.value.field == str(path)


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom"])
def test_a_device_without_an_end_is_refused(device: str) -> None:
    with pytest.raises(RequestError, match="is longer than 1 MiB"):
        read_input(device, 1024**2)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(RequestError, match="cannot be read: ") as caught:
            read_input(str(path), 10)
        assert caught.value.field == str(path)


def test_a_pipe_that_nothing_writes_to_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "WRITER_SECONDS", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(RequestError, match="named pipe that no program writes to"):
        read_input(str(path), 10)


def test_a_slow_writer_of_a_pipe_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "WRITER_SECONDS", 0.1)
    path = tmp_path / "pipe"
    os.mkfifo(path)
    # Held open before the reader comes; opening for both does not wait.
    held = os.open(path, os.O_RDWR)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read_input(str(path), 100)))
    reader.start()
    reader.join(0.5)
    assert reader.is_alive()
    os.write(held, b"six\n")
    os.close(held)
    reader.join(30)
    assert found == [b"six\n"]


# --- encodings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(encoding: str) -> None:
    assert decode_requirements(TEXT.encode(encoding), "r.txt") == TEXT


@given(st.text().filter(lambda text: not text.startswith("\ufeff")), st.sampled_from(["le", "be"]))
def test_any_text_behind_a_mark_comes_out_again(text: str, order: str) -> None:
    for size in ("16", "32"):
        encoding = f"utf-{size}-{order}"
        data = "\ufeff".encode(encoding) + text.encode(encoding)
        # NUL behind the mark of UTF-16 LE is the mark of UTF-32 LE.
        if size == "32" or not text.startswith("\0"):
            assert decode_requirements(data, "r.txt") == text


@pytest.mark.parametrize(
    "line", ["# -*- coding: latin-1 -*-", "#!x\n# vim: set fileencoding=cp1252 :"]
)
def test_a_coding_comment_decides(line: str) -> None:
    text = f"{line}\nidna # café\n"
    assert decode_requirements(text.encode("latin-1"), "r.txt") == text


def test_other_bytes_are_refused_and_the_hint_works() -> None:
    data = "idna\nsix # café\n".encode("latin-1")
    with pytest.raises(RequestError, match=r"is not UTF-8 at line 2 \(byte 0xe9\)") as caught:
        decode_requirements(data, "r.txt")
    assert caught.value.hint is not None
    line = caught.value.hint.partition("example: ")[2].encode()
    assert decode_requirements(line + b"\n" + data, "r.txt").endswith("idna\nsix # café\n")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("six\n".encode("utf-16-le"), "NUL bytes"),
        (b"# coding: nonsense\nsix", "unknown encoding, 'nonsense'"),
        (b"# coding: ascii\n# \xe9", "is not ASCII at line 2"),
        (b"\xff\xfes", "is not UTF-16-LE"),
    ],
)
def test_binary_files_are_refused_with_the_reason(data: bytes, why: str) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        decode_requirements(data, "r.txt")
    assert caught.value.field == "r.txt"


# --- addresses -----------------------------------------------------------------------------------


@pytest.fixture
def site() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """An address, and the paths and logins that were asked for there."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            if self.path == "/moved":
                self.send_response(302)
                port = self.connection.getsockname()[1]
                self.send_header("Location", f"http://localhost:{port}/elsewhere")
                self.end_headers()
            elif self.path == "/ftp":
                self.send_response(302)
                self.send_header("Location", "ftp://localhost/x")
                self.end_headers()
            elif self.path == "/missing":
                self.send_error(404)
            else:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"six\n")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def test_an_address_is_read_and_its_login_stays_with_its_host(
    site: tuple[str, list[tuple[str, str | None]]],
) -> None:
    host, asked = site
    assert read_web(f"http://user:pa%40ss@{host}/moved", 10, "it") == b"six\n"
    assert asked == [("/moved", "Basic dXNlcjpwYUBzcw=="), ("/elsewhere", None)]


@pytest.mark.parametrize(
    ("path", "why"), [("/missing", "HTTP 404"), ("/ftp", "cannot be read"), ("/", "is longer than")]
)
def test_an_address_that_does_not_answer_with_a_file(
    site: tuple[str, list[tuple[str, str | None]]], path: str, why: str
) -> None:
    with pytest.raises(RequestError, match=why) as caught:
        read_web(f"http://{site[0]}{path}", 2, "named so")
    assert caught.value.field == "named so"
