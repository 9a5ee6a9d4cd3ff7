"""A headless Chromium, driven by the DevTools protocol: https://chromedevtools.github.io/devtools-protocol/"""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
from websocket import create_connection

from tests.lab import until

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
    "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--remote-debugging-port=0", "--window-size=1200,800",
)  # fmt: skip
CONTROL = 2
KEYS = {"Enter": 13, "Escape": 27, "Tab": 9}
SCREEN = """
[...Array(terminal.rows).keys()]
    .map((row) => terminal.buffer.active.getLine(row)?.translateToString(true) ?? "").join("\\n")
"""


class Page:
    """One tab. `complaints` are the errors that its console shows, such as of its policy."""

    def __init__(self, port: int, address: str) -> None:
        self._port = port
        new = requests.put(f"http://127.0.0.1:{port}/json/new?about:blank", timeout=60).json()
        self.id = str(new["id"])
        self._socket = create_connection(
            new["webSocketDebuggerUrl"], timeout=60, suppress_origin=True
        )
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log"):
            self.ask(f"{domain}.enable")
        self.ask("Page.navigate", url=address)

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method and return its result."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message: dict[str, Any] = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self._notice(message)

    def _notice(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["level"] == "error":
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")
        elif event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript; None where it fails, as while loading."""
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        return answer["result"].get("value") if "exceptionDetails" not in answer else None

    def until(self, expression: str) -> None:
        until(lambda: self.evaluate(expression) is True, expression)

    @property
    def screen(self) -> str:
        """The text that the terminal shows."""
        return self.evaluate(SCREEN) or ""

    def shows(self, text: str) -> None:
        try:
            until(lambda: text in self.screen, text)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.screen}\n{self.complaints}") from None

    def press(self, key: str, modifiers: int = 0) -> None:
        letter = len(key) == 1
        code = f"Key{key.upper()}" if key.isalpha() and letter else key
        number = ord(key.upper()) if letter else KEYS[key]
        text = {"text": key} if letter and not modifiers else {}
        text = {"text": "\r"} if key == "Enter" else text
        common = {"key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": modifiers}
        self.ask("Input.dispatchKeyEvent", type="keyDown", **common, **text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    def paste(self, text: str) -> None:
        """Paste into the terminal, with the event that the browser sends for it."""
        self.evaluate(
            f"""{{
                const data = new DataTransfer();
                data.setData("text/plain", {json.dumps(text)});
                terminal.textarea.dispatchEvent(
                    new ClipboardEvent("paste", {{ clipboardData: data, bubbles: true }}));
            }}"""
        )

    def log_in(self, secret: str) -> None:
        self.until("document.activeElement === part('token')")
        self.ask("Input.insertText", text=secret)
        self.press("Enter")

    def picture(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.ask("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        requests.get(f"http://127.0.0.1:{self._port}/json/close/{self.id}", timeout=60)
        self._socket.close()


@contextmanager
def chromium(program: str, folder: Path) -> Iterator[int]:
    """Run a browser with a profile of its own in `folder`; yields the port of its DevTools."""
    log = folder / "chromium.log"
    profile = folder / "profile"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        )  # fmt: skip
    try:
        found = profile / "DevToolsActivePort"

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            return found.exists() and "\n" in found.read_text()

        until(listens, "the port of the browser")
        yield int(found.read_text().split()[0])
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
