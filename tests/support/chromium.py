"""A headless Chromium, driven through the DevTools protocol over two pipes: no library, no port, no network.

Chromium reads commands from file descriptor 3 and answers on 4 (`--remote-debugging-pipe`): JSON messages that end with NUL. Tests
skip where there is no Chromium (Debian: `apt-get install chromium`).
"""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--disable-component-update", "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe", "--window-size=1280,900",
)  # fmt: skip
LONGEST_S = 60.0  # for one answer: the machine may be busy


class Browser:
    """A Chromium with one page, a profile in `folder`; `requests` are the addresses that the page asked for, `said` its console."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.requests, self.said = folder, list[str](), list[str]()
        self._unread, self._number, self._session = b"", 0, ""

    def __enter__(self) -> Browser:
        assert PROGRAM is not None
        ways = [self.folder / "commands", self.folder / "answers"]
        for way in ways:
            os.mkfifo(way)
        words = [PROGRAM, *OPTIONS, f"--user-data-dir={self.folder / 'profile'}", "about:blank"]
        shell = 'ways="$1"; shift; exec "$@" 3<"$ways/commands" 4>"$ways/answers"'
        self._program = subprocess.Popen(
            ["sh", "-c", shell, "sh", str(self.folder), *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._commands, self._answers = os.open(ways[0], os.O_WRONLY), os.open(ways[1], os.O_RDONLY)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Performance.enable", timeDomain="threadTicks")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for way in (self._commands, self._answers):
            os.close(way)  # Chromium ends when its pipes do
        try:
            self._program.wait(10)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait(10)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command, and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda found: found.get("id") == message["id"])
        assert "error" not in answer, answer
        return dict(answer["result"])

    def open(self, address: str) -> tuple[float, float]:
        """Go to `address`, and wait until it is loaded and painted.

        Returns the seconds until its first text was painted, and the processor's seconds that all of it took in the page's thread.
        """
        before_s = self._busy_s()
        self.go(address)
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        painted = self.ask("performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0")
        return float(painted) / 1000, self._busy_s() - before_s

    def _busy_s(self) -> float:
        metrics = {metric["name"]: metric["value"] for metric in self.call("Performance.getMetrics")["metrics"]}
        return float(metrics["TaskDuration"])

    def go(self, address: str) -> None:
        """Go to `address`, and wait until the page is loaded."""
        self.call("Page.navigate", url=address)
        self._until(lambda found: found.get("method") == "Page.loadEventFired")

    def ask(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; promises are awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def click(self, selector: str) -> None:
        """Click with the mouse into the middle of the first element that `selector` finds."""
        place = self.ask(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.scrollIntoView({{block: 'center'}});"
            " const box = node.getBoundingClientRect();"
            " return [box.left + Math.min(box.width, 200) / 2, box.top + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)

    def key(self, text: str) -> None:
        """Press and release a key: one that writes the letter `text`, or one of that name (Escape)."""
        for kind in ("keyDown", "keyUp"):
            written = text if kind == "keyDown" and len(text) == 1 else ""
            self.call("Input.dispatchKeyEvent", type=kind, key=text, text=written)

    def choose(self, selector: str, value: str) -> None:
        """Choose the option `value` of a `<select>`, as a user's choice is told to the page."""
        self.ask(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.value = {json.dumps(value)};"
            " node.dispatchEvent(new Event('change')); })()"
        )

    def _until(self, is_wanted: Any) -> dict[str, Any]:
        """Read messages until one that is wanted; the requests and console lines among them are kept."""
        end_s = time.monotonic() + LONGEST_S
        while True:
            while b"\0" in self._unread:
                text, _, self._unread = self._unread.partition(b"\0")
                message = json.loads(text)
                self._note(message)
                if is_wanted(message):
                    return dict(message)
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end_s - time.monotonic()))
            assert ready, f"Chromium did not answer within {LONGEST_S} s"
            piece = os.read(self._answers, 1 << 20)
            assert piece, "Chromium ended"
            self._unread += piece

    def _note(self, message: dict[str, Any]) -> None:
        values = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(values["request"]["url"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.said.append(json.dumps(values["exceptionDetails"]))
        elif message.get("method") == "Log.entryAdded":
            self.said.append(values["entry"]["text"])
