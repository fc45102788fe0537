"""The check that a broker does real work, used by everything that waits for one to be ready."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout

from chatlib.connection import Connection, IOThread
from chatlib.errors import BrokerUnavailable
from chatlib.urls import masked

__all__ = ["probe"]


def probe(url: str, timeout: float = 5.0) -> None:
    """Connect, declare a temporary queue, leave: the check that a broker does real work.

    timeout: seconds. Raises BrokerUnavailable or AccessRefused (which is one).
    """
    outcome: Future[None] = Future()

    def finish(error: BaseException | None = None) -> None:
        if not outcome.done():
            outcome.set_exception(error) if error else outcome.set_result(None)

    def start() -> None:
        connection = Connection(
            io,
            url,
            name="chatlib probe",
            heartbeat=15,
            attempt_timeout=timeout,
            blocked_timeout=timeout,
            on_ready=lambda: connection.open_channel(lambda channel: channel.declare_temporary(lambda: connection.close(finish)), finish),
            on_lost=finish,
            on_blocked=lambda _: None,  # an alarm stops publishing only
            on_unblocked=lambda: None,
        )

    io = IOThread("chatlib probe", finish)
    try:
        io.call(start)
        outcome.result(timeout)
    except FutureTimeout:
        raise BrokerUnavailable(f"no AMQP answer from {masked(url)} within {timeout:g} s: the broker is frozen or still starting") from None
    finally:
        io.stop()
        outcome = Future()  # the old one holds the error, whose traceback holds this frame: a cycle that keeps the caller's broker alive
