"""The weather on a path: all that is wrong with it now, and waiting under it. Everything here runs on the forwarder's loop."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

__all__ = ["Condition", "Pace", "Weather"]

FEW = 65_536  # bytes
MANY = 8_000_000  # bytes
SLICE = 0.02  # seconds: under a throttle, what may pass in so much time passes at once


@dataclass(frozen=True, eq=False, slots=True)
class Condition:
    """One thing that is wrong with a path. Two equal ones are two."""

    refusing: bool = False  #: no connection gets through
    stranding: bool = False  #: those that were there when it began are gone for the client only
    swallowing: bool = False  #: what comes is thrown away
    delay: float = 0.0  #: seconds, each way
    rate: float | None = None  #: bytes a second, each way


class Weather:
    """The sum of all conditions: delays add up, the lowest rate counts. So they may come and go in any order."""

    def __init__(self) -> None:
        self._conditions: list[Condition] = []
        self._changed = asyncio.Event()
        self.refusing = self.swallowing = False
        self.delay = 0.0
        self.rate: float | None = None

    def __contains__(self, condition: Condition) -> bool:
        return condition in self._conditions

    def add(self, condition: Condition) -> None:
        """One more condition."""
        self._conditions.append(condition)
        self._sum_up()

    def remove(self, condition: Condition) -> None:
        """One less; those who wait under it are woken."""
        self._conditions.remove(condition)
        self._sum_up()

    def _sum_up(self) -> None:
        self.refusing = any(each.refusing for each in self._conditions)
        self.swallowing = any(each.swallowing for each in self._conditions)
        self.delay = sum(each.delay for each in self._conditions)
        self.rate = min((each.rate for each in self._conditions if each.rate is not None), default=None)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    @property
    def room(self) -> int:
        """Bytes that may be under way in one direction of a connection: as on a real line, what rate and delay hold, and a bit."""
        if self.rate is not None:
            return FEW + int(self.rate * self.delay)
        return MANY if self.delay else FEW

    async def until(self, due: float) -> None:
        """Wait until the loop's clock says `due`, or the weather changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(due):
                await self._changed.wait()


class Pace:
    """The rate of one direction, shared by all connections."""

    def __init__(self, weather: Weather) -> None:
        self._weather = weather
        self._free_at = 0.0  # the loop's clock: when there is room again

    async def turn(self, wanted: int) -> int:
        """Wait for one's turn; how many of the bytes that one wants to write may be written now."""
        loop, weather = asyncio.get_running_loop(), self._weather
        while (rate := weather.rate) is not None:
            now = loop.time()
            if self._free_at <= now:
                size = max(1, min(wanted, int(rate * SLICE)))
                self._free_at = now + size / rate
                return size
            await weather.until(self._free_at)
        self._free_at = 0.0
        return wanted
