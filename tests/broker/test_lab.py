"""`make lab`: what it starts, what it prints, and that Ctrl-C leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from chatlib.brokers import LocalBroker
from tests.support import ROOT, process_runs, wait_until

TOKEN = "a-token-of-the-test"
NOT_INHERITED = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER", "CHATLIB_BROKER_URL"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=2):
        return True
    return False


@contextlib.contextmanager
def lab(command: list[str], port: int, output: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` in a session of its own, as a terminal would; at the end nothing of it is left, whatever happened."""
    kept = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
    with output.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=kept | {"PORT": str(port), "TOKEN": TOKEN, "PYTHONUNBUFFERED": "1"} | environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(40)
        if process.poll() is None:
            family = psutil.Process(process.pid).children(recursive=True)
            for member in [*family, process]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
            process.wait()


def kernels(pid: int) -> list[psutil.Process]:
    """Return the Jupyter kernels among the descendants of process `pid`."""
    return [child for child in psutil.Process(pid).children(recursive=True) if "ipykernel_launcher" in " ".join(child.cmdline())]


def address(output: Path) -> str:
    """Return the line of the output that is an address and nothing else, or an empty string."""
    return next((line for line in output.read_text().splitlines() if line.startswith("http://")), "")


@pytest.fixture
def opener(tmp_path: Path) -> Path:
    """A folder with programs that open browsers; each only writes down what it was asked to open, in `opened`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("xdg-open", "www-browser", "a-browser"):
        program = folder / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$1" >>"{folder}/opened"\n')
        program.chmod(0o755)
    return folder


def test_make_lab_serves_the_course_and_ctrl_c_stops_everything(tmp_path: Path, opener: Path) -> None:
    """Given no broker and no display; 1 the address comes alone on a line and answers, with the token only; 2 a kernel
    runs and knows a broker that answers; 3 Ctrl-C, as the terminal sends it: no process and no port is left.
    """
    port, output = free_port(), tmp_path / "output"
    with lab(["make", "lab"], port, output, PATH=f"{opener}:{os.environ['PATH']}") as process:
        # 1
        wait_until(lambda: address(output) or process.poll() is not None, 90, "the address is printed")
        assert address(output) == f"http://127.0.0.1:{port}/lab/tree/notebooks/00-start-here.ipynb?token={TOKEN}", output.read_text()
        base = f"http://127.0.0.1:{port}"
        assert httpx.get(address(output), follow_redirects=True).status_code == 200
        assert httpx.get(f"{base}/api/kernels").status_code == 403
        # 2
        with httpx.Client(base_url=base, headers={"Authorization": f"token {TOKEN}"}) as client:
            client.post("/api/kernels", json={"name": "python3"}).raise_for_status()
        family = psutil.Process(process.pid).children(recursive=True)
        kernel = wait_until(
            lambda: next(
                (p for p in psutil.Process(process.pid).children(recursive=True) if "ipykernel_launcher" in " ".join(p.cmdline())), None
            ),
            30,
            "a kernel runs",
        )
        family = [*family, *psutil.Process(process.pid).children(recursive=True)]
        broker_port = urlsplit(kernel.environ()["CHATLIB_BROKER_URL"]).port
        assert broker_port and answers(broker_port)
        management_port = urlsplit(kernel.environ()["CHATLIB_MANAGEMENT_URL"]).port
        assert management_port and answers(management_port)
        # 3
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)
        assert len(family) >= 3
        wait_until(lambda: not any(process_runs(member.pid) for member in family), 20, f"no process is left of {family}")
        assert not answers(port) and not answers(broker_port)
    assert "Stopped." in output.read_text()
    assert not (opener / "opened").exists(), "a browser was opened where there is no display"


def test_a_browser_is_opened_where_there_is_one_and_a_given_broker_is_left_running(
    tmp_path: Path, opener: Path, broker: LocalBroker
) -> None:
    port, output = free_port(), tmp_path / "output"
    command = [sys.executable, "scripts/lab.py"]
    with lab(command, port, output, BROWSER=f"{opener}/a-browser %s", CHATLIB_BROKER_URL=broker.url) as process:
        opened = opener / "opened"
        wait_until(lambda: opened.exists() and opened.read_text(), 60, "the browser is opened")
        assert opened.read_text().strip() == address(output)
        process.send_signal(signal.SIGTERM)
        assert process.wait(40) == 0
    broker_port = urlsplit(broker.url).port
    assert broker_port and answers(broker_port)


def test_a_taken_port_is_refused_at_once_with_the_way_out(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port, output = taken.getsockname()[1], tmp_path / "output"
        with lab([sys.executable, "scripts/lab.py"], port, output) as process:
            assert process.wait(30) == 1
    assert f"Port {port} is taken" in output.read_text()
    assert "PORT=" in output.read_text()
