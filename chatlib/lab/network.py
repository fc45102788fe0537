"""The payment network that the bank has to ask before each payment: something that a handler needs, and that fails."""

from __future__ import annotations

import json
import math
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from chatlib.errors import ChatError

if TYPE_CHECKING:
    from chatlib.lab.lesson import Lesson
    from chatlib.received import ReceivedMessage

__all__ = ["BadPayment", "Call", "Network", "NetworkBusy", "NetworkDown"]


DOWN = "network down"


class NetworkDown(ChatError):
    """Nobody answered. It may work later."""


class NetworkBusy(ChatError):
    """Too many calls at once. It may work later."""


class BadPayment(ChatError):
    """The payment itself makes no sense, today or tomorrow."""


class Call(NamedTuple):
    """One call. at: Unix seconds. told: "paid", or what was raised."""

    at: float
    message_id: str
    told: str


class Network:
    """Up at first. `calls` has every call that was made; `paid` the orders that were carried out, in order.

    capacity: calls that it takes in a tenth of a second; None: any number. outages: (Unix seconds when
    it went down, and when it came back).
    """

    def __init__(self, lesson: Lesson, *, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.calls: list[Call] = []
        self.paid: list[str] = []
        self.outages: list[tuple[float, float]] = []
        self._lesson = lesson
        self._lock = threading.Lock()
        self._is_down = False
        self._failures = 0  # calls that are still to fail
        self._room = float(capacity or 0)
        self._filled = time.monotonic()

    def down(self) -> None:
        """The fault of this lesson: from now on every call fails."""
        if not self._is_down:
            self._is_down = True
            self.outages.append((time.time(), math.inf))
            self._lesson.fault_began(DOWN)

    def up(self) -> None:
        """It answers again."""
        if self._is_down:
            self._is_down = False
            self.outages[-1] = (self.outages[-1][0], time.time())
            self._lesson.fault_ended(DOWN)

    def fail(self, count: int) -> None:
        """The next `count` calls fail, and then it answers again."""
        with self._lock:
            self._failures = count

    def pay(self, message: ReceivedMessage, amount: int | None = None) -> None:
        """Carry out the payment in `message`: {"order": "A1", "amount": 10}. amount: instead of the one that is written there.

        Raises NetworkDown or NetworkBusy, which pass, and BadPayment, which does not.
        """
        try:
            self._pay(message, amount)
        except ChatError as exc:
            self._note(message, type(exc).__name__)
            raise
        self._note(message, "paid")

    def _pay(self, message: ReceivedMessage, amount: int | None) -> None:
        with self._lock:
            failing, self._failures = self._failures > 0, max(0, self._failures - 1)
            if self._is_down or failing:
                raise NetworkDown("nobody answers")
            if not self._has_room():
                raise NetworkBusy("too many calls")
        payment = json.loads(message.content)
        amount = payment["amount"] if amount is None else amount
        if not isinstance(amount, int):
            raise BadPayment(f"{amount!r} is no amount")
        self.paid.append(payment["order"])

    def _has_room(self) -> bool:
        """A bucket of `capacity` calls, filled again in a tenth of a second."""
        if self.capacity is None:
            return True
        now = time.monotonic()
        self._room = min(self.capacity, self._room + (now - self._filled) * self.capacity * 10)
        self._filled = now
        if self._room < 1:
            return False
        self._room -= 1
        return True

    def _note(self, message: ReceivedMessage, told: str) -> None:
        self.calls.append(Call(time.time(), message.message_id, told))

    def __repr__(self) -> str:
        return f"<Network {'down' if self._is_down else 'up'}: {len(self.calls)} calls, {len(self.paid)} payments>"
