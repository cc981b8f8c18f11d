"""A real browser for tests: headless Chromium, driven by its own protocol, without another package."""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless_shell")
KEYS = {"Enter": ("\r", 13), "ArrowDown": ("", 40), "ArrowUp": ("", 38), "ArrowLeft": ("", 37), "ArrowRight": ("", 39)}
KEYS |= {"Tab": ("", 9), "/": ("/", 191)}


def find_browser() -> str | None:
    """The program: what RANKER_CHROMIUM names, else the first that is installed."""
    return os.environ.get("RANKER_CHROMIUM") or next((found for name in NAMES if (found := shutil.which(name))), None)


class Page:
    """One page, ``async with Page(program) as page``. Requests to anywhere but the service fail, and are listed."""

    def __init__(self, program: str, width: int = 1280, height: int = 900) -> None:
        self._program, self._size = program, (width, height)
        self._number = 0
        self.errors: list[str] = []
        self.asked: list[str] = []

    async def __aenter__(self) -> "Page":
        self._folder = tempfile.mkdtemp(prefix="browser-")
        flags = [
            "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
            "--disable-dev-shm-usage", "--single-process", "--no-zygote", f"--user-data-dir={self._folder}",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [self._program, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        port = Path(self._folder) / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (port.exists() and port.read_text().count("\n")):
            assert self._process.poll() is None and time.monotonic() < end, "the browser does not start"
            await asyncio.sleep(0.05)
        address = f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"{address}/json/list") as answer:
            [target, *_] = [entry for entry in await answer.json(content_type=None) if entry["type"] == "page"]
        self._socket = await self._session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=2**26)
        for domain in ("Page", "Runtime", "Network", "Log"):
            await self("enable", domain=domain)
        await self.resize(*self._size)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def __call__(self, method: str, domain: str = "Page", **parameters: Any) -> dict[str, Any]:
        self._number += 1
        number = self._number
        await self._socket.send_json({"id": number, "method": f"{domain}.{method}", "params": parameters})
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), 60)).data)
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, message
                return dict(message["result"])

    def _note(self, message: dict[str, Any]) -> None:
        method, told = message.get("method"), message.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(told["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.errors.append(str(told["exceptionDetails"].get("exception", told)))
        if method == "Log.entryAdded" and told["entry"]["level"] == "error" and told["entry"]["source"] != "network":
            self.errors.append(told["entry"]["text"])

    async def resize(self, width: int, height: int, phone: bool = False) -> None:
        """Another size of the window."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        await self("setDeviceMetricsOverride", "Emulation", **size)

    async def prefer(self, scheme: str) -> None:
        """``light`` or ``dark``, as the system would say."""
        await self("setEmulatedMedia", "Emulation", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def open(self, url: str) -> None:
        """Load a page, to the end of its scripts."""
        await self("navigate", url=url)
        await self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    async def run(self, script: str) -> Any:
        """The value of an expression in the page."""
        told = await self("evaluate", "Runtime", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def until(self, script: str, seconds: float = 30) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not await self.run(script):
            assert time.monotonic() < end, f"never true: {script}; {self.errors}"
            await asyncio.sleep(0.05)

    async def press(self, key: str) -> None:
        """A key, as a hand presses it."""
        text, code = KEYS[key]
        for kind in ("keyDown", "keyUp"):
            extra = {"text": text} if text and kind == "keyDown" else {}
            await self("dispatchKeyEvent", "Input", type=kind, key=key, windowsVirtualKeyCode=code, **extra)

    async def type(self, text: str) -> None:
        """Text into what has the focus."""
        await self("insertText", "Input", text=text)

    async def picture(self, file: Path) -> None:
        """A screenshot of the whole page."""
        told = await self("captureScreenshot", format="png", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(told["data"]))
