"""What live widgets cost the kernel: a Jupyter kernel of its own shows them while messages flow, and its processor time is read."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
from jupyter_client.manager import start_new_kernel

import chatlib
from benchmarks.node import Node
from benchmarks.processes import Failed

__all__ = ["HZ", "RATE", "USERS", "WIDGETS", "cpu"]

USERS = 25  # of whom each has two queues
HZ = 4  # samples a second
RATE = 20.0  # messages a second, to one user after the other, who are away
WARM_UP = 5.0  # seconds that are not counted, at most as many as are: imports, the first picture
STARTED = 120.0  # seconds for a kernel and its imports

WIDGETS = {
    "chart": f"from chatlib.lab.widgets.queue_chart import QueueChart; display(QueueChart(monitor, sample_hz={HZ}, window='2 min'))",
    "map": "from chatlib.lab.widgets.topology_map import TopologyMap; display(TopologyMap(monitor))",
}
"""What can be shown, as code that has a `monitor`."""

SET_UP = """
from chatlib.monitor import Monitor
class Where:
    url, management_url = {url!r}, {management_url!r}
monitor = Monitor(Where)
"""


def cpu(node: Node, widgets: Sequence[str], seconds: float, users: Sequence[str]) -> float:
    """Return the percent of one core that the kernel takes with these widgets (of `WIDGETS`), for so many seconds. Raises Failed.

    users: who get messages meanwhile. The browser's own work is not counted, and neither is what it answers.
    """
    manager, client = start_new_kernel(startup_timeout=STARTED, stderr=subprocess.DEVNULL)
    try:
        where = node.broker
        code = [SET_UP.format(url=where.url, management_url=where.management_url), *(WIDGETS[name] for name in widgets)]
        reply = client.execute_interactive("\n".join(code), timeout=STARTED, output_hook=lambda _: None)
        if reply["content"]["status"] != "ok":
            raise Failed(f"{' and '.join(widgets)}: {reply['content'].get('evalue', 'the cell failed')}")
        process = psutil.Process(_pid(client))
        with _traffic(node.url, users):
            time.sleep(min(WARM_UP, seconds))
            began, before = time.monotonic(), _used(process)
            time.sleep(seconds)
            return 100 * (_used(process) - before) / (time.monotonic() - began)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def _pid(client: Any) -> int:
    found = client.execute_interactive(
        "", user_expressions={"pid": "__import__('os').getpid()"}, timeout=STARTED, output_hook=lambda _: None
    )
    return int(found["content"]["user_expressions"]["pid"]["data"]["text/plain"])


def _used(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


@contextlib.contextmanager
def _traffic(url: str, users: Sequence[str]) -> Iterator[None]:
    """Send to one user after the other, from this process, whose time is not counted."""
    ended = threading.Event()

    def send() -> None:
        with chatlib.connect(url) as chat:
            sender = chat.user(users[0])
            for name in itertools.cycle(users):
                if ended.wait(1 / RATE):
                    return
                sender.send(f"@{name}", "x")

    thread = threading.Thread(target=send, name="traffic")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(30)
