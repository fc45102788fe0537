"""The course in JupyterLab with a broker beside it; Ctrl-C stops all of it. `make lab` runs this.

The broker is the one of `chatlib.default_broker()`: CHATLIB_BROKER_URL if that is set, else a private RabbitMQ.
Terminals and kernels find it in CHATLIB_BROKER_URL and CHATLIB_MANAGEMENT_URL. The lessons that break a broker start one of their own.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import httpx
import psutil

from chatlib.brokers import default_broker
from chatlib.errors import ChatError

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".setup"
LOG = STATE / "jupyterlab.log"
FIRST_PAGE = "lab/tree/notebooks/00-start-here.ipynb"
START_SECONDS = 60.0  # JupyterLab needs 3-4 s here; this is for a slow disk
STOP_SECONDS = 15.0  # a kernel that holds a broker stops it first


class Stopped(BaseException):
    """Ctrl-C, or the terminal went away, or somebody asked this program to end."""


def main() -> int:
    """Start the broker and JupyterLab, wait for Ctrl-C, stop both; return the exit status."""
    options = arguments()
    try:
        port = options.port or free_port(options.host)
        refused = None if port_is_free(options.host, port) else "is taken by another program"
    except (OSError, OverflowError) as error:  # below 1024 without root, above 65535, no such host
        refused = f"cannot be used: {str(error).rstrip('.')}"
    if refused:
        print(f"Port {options.port} {refused}; choose one: make lab PORT=8899", file=sys.stderr)
        return 1
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop_on_signal)
    try:
        print("Broker ... ", end="", flush=True)
        began = time.monotonic()
        with default_broker() as broker:
            print(f"ok ({time.monotonic() - began:.0f} s)")
            with jupyterlab(options.host, port, options.token, broker.url, broker.management_url) as server:
                url = f"http://{'127.0.0.1' if options.host == '0.0.0.0' else options.host}:{port}/{FIRST_PAGE}?token={options.token}"  # noqa: S104
                print(f"\n{url}\n\nCtrl-C stops JupyterLab and everything that it started.", flush=True)
                if has_display():
                    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
                server.wait()
                print(f"JupyterLab ended by itself (log: {LOG.relative_to(ROOT)})", file=sys.stderr)
                return 1
    except Stopped:
        print("\nStopped.")
        return 0
    except ChatError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1


def arguments() -> argparse.Namespace:
    """Read the command line; PORT and TOKEN of the environment are the defaults."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default %(default)s)")
    parser.add_argument("--port", type=int, default=os.environ.get("PORT") or 0, help="default: $PORT, else the first free one from 8888")
    parser.add_argument("--token", default=os.environ.get("TOKEN") or secrets.token_hex(16), help="default: $TOKEN, else a fresh one")
    return parser.parse_args()


def stop_on_signal(number: int, frame: FrameType | None) -> None:
    """Leave every `with` in order. A second signal, while stopping, has no effect: each stop has its own time limit."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise Stopped


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
        return True


def free_port(host: str) -> int:
    """Return the first free port from 8888, Jupyter's own habit."""
    return next(port for port in range(8888, 8988) if port_is_free(host, port))


def has_display() -> bool:
    """Whether a browser can be shown here: there is a screen, or the user named a browser."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"))


@contextlib.contextmanager
def jupyterlab(host: str, port: int, token: str, broker_url: str, management_url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a JupyterLab server that answers; on leaving, stop it and all that it started."""
    STATE.mkdir(exist_ok=True)
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "CHATLIB_BROKER_URL": broker_url,
        "CHATLIB_MANAGEMENT_URL": management_url,
        "JUPYTER_TOKEN": token,  # not on the command line, where every user of the machine could read it
        "JUPYTER_CONFIG_PATH": str(ROOT),  # here lies labconfig/
        "JUPYTER_CONFIG_DIR": str(STATE / "jupyter"),  # the course neither sees nor changes the user's own set-up
        "JUPYTERLAB_SETTINGS_DIR": str(STATE / "jupyter" / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(STATE / "jupyter" / "workspaces"),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", f"--ip={host}", f"--port={port}"),
        *("--ServerApp.port_retries=0", f"--ServerApp.root_dir={ROOT}", f"--FileContentsManager.preferred_dir={ROOT / 'notebooks'}"),
    ]
    if os.geteuid() == 0:
        command.append("--allow-root")
    print("JupyterLab ... ", end="", flush=True)
    began = time.monotonic()
    with LOG.open("wb") as log:
        # A session of its own: Ctrl-C reaches only this program, which then stops things in order.
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until_it_answers(server, host, port, token)
        print(f"ok ({time.monotonic() - began:.0f} s)")
        yield server
    finally:
        stop_all(server)


def wait_until_it_answers(server: subprocess.Popen[bytes], host: str, port: int, token: str) -> None:
    """Return when the server serves requests with this token; raise ChatError with its last log lines if it does not."""
    address = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/api/status"  # noqa: S104
    deadline = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(address, headers={"Authorization": f"token {token}"}, timeout=2, trust_env=False).is_success:
                return
        time.sleep(0.1)
    tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-10:])
    message = f"JupyterLab did not start (log: {LOG.relative_to(ROOT)}):\n{tail}"
    raise ChatError(message)


def stop_all(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to end, which ends its kernels; kill what is left of its descendants after STOP_SECONDS."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [parent := psutil.Process(server.pid), *parent.children(recursive=True)]
    server.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_SECONDS)
    _, left = psutil.wait_procs(family, timeout=STOP_SECONDS)
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    server.wait()


if __name__ == "__main__":
    sys.exit(main())
