"""A JupyterLab of our own and Debian's Chromium in front of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.support import ROOT, wait_until

SHOTS = ROOT / "artifacts"
"""Where the pictures of the pages go, for people to look at; not part of the project."""

PRIVATE = ("CONFIG_DIR", "RUNTIME_DIR", "DATA_DIR")
LOCAL = ("http://127.0.0.1:", "ws://127.0.0.1:", "data:", "blob:")
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
NOTEBOOK_SETTINGS = "@jupyterlab/notebook-extension:tracker"

# JupyterLab 4.6, shown its splash screen twice in a fifth of a second, takes it down twice; nothing of ours is on that stack
SPLASH = re.compile(r"NotFoundError: Failed to execute 'removeChild' on 'Node'.*\n +at http://\S+/static/lab/jlab_core\S+")

# plotly 7 does not let go of a view that the page has taken down: an update on its way there when a cell is run again ends like this
TAKEN_DOWN = "Error setting state: Cannot read properties of undefined (reading 'length')"


@dataclass
class Lab:
    """A running JupyterLab that shows a copy of the lessons. `url` ends in a slash; it asks for no token."""

    url: str
    folder: Path


@dataclass
class Watch:
    """What a page did that it should not: requests that left this machine, errors on the console."""

    outside: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home, folder = tmp_path_factory.mktemp("jupyter"), tmp_path_factory.mktemp("course")
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        shutil.copy(notebook, folder)
    settings = json.loads((ROOT / "labconfig" / "default_setting_overrides.json").read_text())
    settings[NOTEBOOK_SETTINGS] = {"windowingMode": "none"}  # all cells are in the page, not only those on the screen
    (home / "labconfig").mkdir()
    (home / "labconfig" / "default_setting_overrides.json").write_text(json.dumps(settings))
    environment = {f"JUPYTER_{name}": str(home / name.lower()) for name in PRIVATE} | {
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_PATH": str(home),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    log, runtime = home / "server.log", home / "runtime_dir"
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"),
        *("--IdentityProvider.token=", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"),
    ]
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield Lab(wait_until(lambda: address(server, runtime, log), 90, "JupyterLab answers", poll=0.1), folder)
    finally:
        family = psutil.Process(server.pid).children(recursive=True)
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(20)
        for process in psutil.wait_procs(family, timeout=10)[1]:
            process.kill()
        server.kill()
        server.wait()


def address(server: subprocess.Popen[bytes], runtime: Path, log: Path) -> str:
    """Where the server answers, or "" as long as it does not."""
    assert server.poll() is None, log.read_text()
    for file in runtime.glob("jpserver-*.json"):
        with contextlib.suppress(httpx.HTTPError, ValueError):
            url = str(json.loads(file.read_text())["url"])
            if httpx.get(f"{url}api/status", timeout=2, trust_env=False).is_success:
                return url.replace("localhost", "127.0.0.1")
    return ""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium on this machine: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def watch(page: Page) -> Watch:
    seen = Watch()

    def on_request(request: Any) -> None:
        if not request.url.startswith(LOCAL):
            seen.outside.append(request.url)

    def on_console(message: Any) -> None:
        if message.type == "error" and message.text != TAKEN_DOWN:
            seen.problems.append(message.text)

    page.on("request", on_request)
    page.on("console", on_console)

    def on_error(error: Error) -> None:
        said = error.stack or str(error)
        if not SPLASH.fullmatch(said):
            seen.problems.append(said)

    page.on("pageerror", on_error)
    return seen
