"""Headless Chromium, driven by its DevTools protocol: a page from disk, what it says, asks for and looks like."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--no-first-run",
    "--remote-debugging-port=0",
)
# What a browser itself asks its vendor for is none of the page's.
FLAGS += ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server")


class Page:
    """One tab."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._last = socket, 0
        self.events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **words: Any) -> dict[str, Any]:
        """Ask Chromium for something; what it says by itself meanwhile is kept."""
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": words}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._last:
                assert "error" not in message, message["error"]
                return dict(message["result"])
            self.events.append(message)

    def look(self, width: int, scheme: str, height: int = 900) -> None:
        """Be so many CSS pixels wide, with a system that is light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while self.js("document.readyState") != "complete" or self.js("location.href") != path.as_uri():
            pass

    def js(self, expression: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def point(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=9 * (key == "Tab"))

    def complaints(self) -> list[str]:
        """Errors and warnings of the console."""
        kinds = ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")
        return [json.dumps(event["params"]) for event in self.events if event["method"] in kinds]

    def requests(self) -> list[str]:
        """Everything that was asked for."""
        return [e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"]

    def picture(self, path: Path, clip_height: int | None = None) -> None:
        """The whole page as PNG, or its top."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": clip_height or size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Start Chromium with its profile in `folder`, and end it."""
    assert CHROMIUM, "the test asks first"
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr
        line = next(line for line in process.stderr if "DevTools listening" in line)
        address = re.search(r"ws://\S+", line)
        assert address
        host = address[0].split("/")[2]
        with connect(address[0], max_size=2**27) as root:
            root.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            tabs = json.loads(root.recv(timeout=60))["result"]["targetInfos"]
        tab = next(each["targetId"] for each in tabs if each["type"] == "page")
        with connect(f"ws://{host}/devtools/page/{tab}", max_size=2**27) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(30)
        assert process.stderr
        process.stderr.close()
