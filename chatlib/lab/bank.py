"""A bank as the other side of a call: it takes payments over HTTP and out of a queue, and can be down or slow."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from chatlib import events
from chatlib.events import Events
from chatlib.received import ReceivedMessage
from chatlib.settings import Settings

if TYPE_CHECKING:
    from chatlib.chat import Chat
    from chatlib.lab.lesson import Lesson

__all__ = ["NAME", "Bank"]

NAME = "bank"


class Bank:
    """Down at first: `start` it. Every payment that it carries out is in `booked`, as (order, amount), in order.

    Over HTTP it answers at `url`. With `listen` it also takes payments from its inbox, one after the other.
    """

    def __init__(self, lesson: Lesson) -> None:
        self.booked: list[tuple[str, int]] = []
        self._lesson = lesson
        self._delay = 0.0
        self._pause = threading.Event()  # never set: waiting for it is how long a payment takes
        self._hops = Events()
        self._hops.listen(lesson.recorder)
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self._chat: Chat | None = None
        self._listens = False
        self._was_up = False
        lesson.closing(self._close)

    @property
    def url(self) -> str:
        """Where it answers HTTP; stays the same."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def is_up(self) -> bool:
        """Whether it takes payments."""
        return self._server is not None

    def start(self) -> None:
        """Open: answer HTTP and, once it listens, take from the queue."""
        if self._server is not None:
            return
        self._server = _Counter(("127.0.0.1", self._port), _Window, self)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="bank http", daemon=True).start()
        if self._listens:
            self._take_from_queue()
        if self._was_up:
            self._lesson.fault_ended("bank down")
        self._was_up = True

    def stop(self) -> None:
        """The fault of this lesson: the bank is down. HTTP calls are refused, and nobody takes from its queue."""
        if self._server is None:
            return
        self._lesson.fault_began("bank down")
        self._close()

    def slow(self, seconds: float) -> None:
        """From now on each payment takes so long; 0 is as fast as it goes."""
        if self._delay and not seconds:
            self._lesson.fault_ended("bank slow")
        if seconds and not self._delay:
            self._lesson.fault_began("bank slow")
        self._delay = seconds

    def listen(self) -> None:
        """Sign the bank up as a chat user of that name, and take payments from its inbox from now on."""
        if not self._listens:
            self._listens = True
            self._take_from_queue()

    def book(self, order: str, amount: int) -> str:
        """Carry out a payment; returns its receipt."""
        self._pause.wait(self._delay)
        self.booked.append((order, amount))
        return f"booked {amount} for {order}"

    def __repr__(self) -> str:
        return f"<Bank {'up' if self.is_up else 'down'}, {len(self.booked)} payments booked>"

    def _take_from_queue(self) -> None:
        # One payment at a time: what waits, waits on the broker, where it can be seen.
        self._chat = self._lesson.connect(NAME, settings=Settings(prefetch=1))
        self._chat.user(NAME).on_message(self._handle)

    def _handle(self, message: ReceivedMessage) -> None:
        payment = json.loads(message.content)
        self.book(payment["order"], payment["amount"])

    def _close(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
        if self._chat is not None:
            self._chat.close()
            self._chat = None


class _Counter(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a payment under way goes on; nobody waits for it

    def __init__(self, address: tuple[str, int], window: type[BaseHTTPRequestHandler], bank: Bank) -> None:
        self.bank = bank
        super().__init__(address, window)


class _Window(BaseHTTPRequestHandler):
    """One HTTP call: POST {"order": ..., "amount": ...}."""

    server: _Counter

    def do_POST(self) -> None:
        bank, payment = self.server.bank, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        order = payment["order"]
        bank._hops.emit(events.DELIVERED, order, user=NAME, attempt=1)
        receipt = bank.book(order, payment["amount"])
        bank._hops.emit(events.HANDLED, order, user=NAME, attempt=1)
        body = json.dumps({"receipt": receipt}).encode()
        with contextlib.suppress(OSError):  # the caller may have given up
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  the signature of http.server
        """Say nothing: a line would land in whichever cell runs."""
