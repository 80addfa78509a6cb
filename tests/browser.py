"""A headless Chromium that tests steer by its DevTools protocol, over websockets."""

import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

_FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--hide-scrollbars"]


class Page:
    """A page that is open in a browser.

    Args:
        socket: to the page.
    """

    def __init__(self, socket: Any) -> None:
        self.socket = socket
        self.count = 0

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Calls a method of the protocol."""
        self.count += 1
        self.socket.send(json.dumps({"id": self.count, "method": method, "params": params}))
        while (answer := json.loads(self.socket.recv(timeout=60))).get("id") != self.count:
            pass
        return answer["result"]

    def run(self, script: str) -> Any:
        """What a JavaScript expression is."""
        return self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def wait(self, script: str, seconds: float = 60.0) -> Any:
        """What a JavaScript expression is as soon as it is true."""
        end = time.monotonic() + seconds
        while not (found := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(script)
            time.sleep(0.2)
        return found

    def press(self, key: str) -> None:
        """Presses a key, as a user does."""
        codes = {"ArrowRight": 39, "ArrowLeft": 37}
        for kind in ("rawKeyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=codes[key])

    def screenshot(self, file: Path) -> None:
        """Writes what the page looks like into a .png."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@contextlib.contextmanager
def opened(url: str, folder: Path, size: tuple[int, int] = (1200, 900)) -> Iterator[Page]:
    """A page in a browser of its own, whose profile is in a folder."""
    from websockets.sync.client import connect

    flags = [*_FLAGS, f"--user-data-dir={folder}", "--remote-debugging-port=0", f"--window-size={size[0]},{size[1]}"]
    browser = subprocess.Popen([CHROMIUM, *flags, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        socket = connect(_address(folder / "DevToolsActivePort"), max_size=None)
        with socket:
            yield Page(socket)
    finally:
        browser.terminate()
        browser.wait()


def _address(file: Path) -> str:
    """Of the page's websocket, as soon as the browser has opened it."""
    import urllib.request

    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, IndexError, StopIteration):  # the file may not be written yet
            port = int(file.read_text().split()[0])
            pages = json.loads(urllib.request.urlopen(f"http://127.0.0.1:{port}/json").read())
            return next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        time.sleep(0.2)
    raise TimeoutError("the browser did not start")
