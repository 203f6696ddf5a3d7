"""Headless Chromium, driven over its debugging pipe (JSON between NUL bytes), for tests of pages."""

import base64
import json
import os
import shlex
import subprocess
import time
from contextlib import contextmanager
from shutil import which

WAIT = 60
_OPTIONS = (
    "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-extensions --hide-scrollbars "
    "--remote-debugging-pipe --no-first-run --disable-background-networking"
).split()
_NOWHERE = "MAP * ~NOTFOUND"
"""No name of a host is resolved: what a page asked for from a network would fail, and be heard."""


def find_chromium():
    """Path of Chromium or Chrome; None where there is none."""
    return next(filter(None, map(which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def chromium(profile):
    """A running browser with one empty tab; `profile` is a folder for its files."""
    from_us, to_browser = os.pipe()
    from_browser, to_us = os.pipe()
    command = [find_chromium(), *_OPTIONS, f"--user-data-dir={profile}", f"--host-resolver-rules={_NOWHERE}"]
    # The browser reads commands from descriptor 3 and writes to 4.
    call = f"exec {shlex.join(command)} about:blank 3<&{from_us} 4>&{to_us}"
    process = subprocess.Popen(["bash", "-c", call], pass_fds=(from_us, to_us), stderr=subprocess.DEVNULL)
    os.close(from_us)
    os.close(to_us)
    try:
        with os.fdopen(to_browser, "wb", 0) as commands, os.fdopen(from_browser, "rb") as answers:
            yield Tab(commands, answers)
    finally:
        process.terminate()
        process.wait(WAIT)


class Tab:
    """One page, with everything the browser told about it."""

    def __init__(self, commands, answers):
        self.commands, self.answers = commands, answers
        self.count, self.rest, self.session = 0, b"", None
        self.events = []
        targets = self.send("Target.getTargets")["targetInfos"]
        target = next(one["targetId"] for one in targets if one["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """Result of a command; events that come before it are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.commands.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def open(self, path, width=1200, height=900, dark=False):
        """Show a file in a window of that width (CSS pixels), in light or dark colours."""
        self.events.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Page.navigate", url=path.resolve().as_uri())
        until = time.monotonic() + WAIT
        while self.evaluate("document.readyState") != "complete" and time.monotonic() < until:
            time.sleep(0.05)

    def evaluate(self, expression):
        """Value of a JavaScript expression in the page."""
        return self.send("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def screenshot(self, path, whole=True):
        """PNG of the whole page, or of what is in the window."""
        shot = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def complaints(self):
        """Messages on the console, failed loads and uncaught errors."""
        heard = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded", "Network.loadingFailed")
        return [event for event in self.events if event.get("method") in heard]

    def requests(self):
        """Addresses that the page asked for."""
        sent = (event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent")
        return [one["request"]["url"] for one in sent]

    def _next(self):
        while b"\0" not in self.rest:
            more = self.answers.read1(1 << 20)
            if not more:
                raise RuntimeError("Chromium ended")
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)
