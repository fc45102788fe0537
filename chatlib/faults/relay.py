"""One client of a path and its connection to the broker: two directions, each of which reads ahead, waits, and writes in order."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from dataclasses import dataclass
from typing import Any

from chatlib.faults.weather import Pace, Weather

__all__ = ["Relay", "Traffic"]

CHUNK = 65_536  # bytes
CONNECT_PATIENCE = 5.0  # seconds until the broker must have accepted
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with RST instead of FIN


@dataclass(eq=False, slots=True)
class Traffic:
    """One direction of all connections of a path."""

    pace: Pace
    passed: int = 0  #: bytes
    swallowed: int = 0  #: bytes


class Relay:
    """`run` forwards between `client` and `target` until both have ended or one breaks. Runs on the forwarder's loop."""

    def __init__(self, client: socket.socket, target: tuple[str, int], weather: Weather, up: Traffic, down: Traffic) -> None:
        self._client = _ready(client)
        self._target = target
        self._weather = weather
        self._up, self._down = up, down
        self.has_gap = False  #: something of it was swallowed: what would follow makes no sense to the other side
        self._wanted_stranded, self._stranded = asyncio.Event(), asyncio.Event()

    async def run(self) -> None:
        """Both directions. Where it does not end in good order both sides are reset; cancel it to do that."""
        loop = asyncio.get_running_loop()
        server: socket.socket | None = None
        tasks: list[asyncio.Future[Any]] = []
        in_order = False
        try:
            if self._weather.swallowing:
                self.has_gap = True  # the broker never hears of it
            else:
                server = _ready(socket.socket(socket.AF_INET6 if ":" in self._target[0] else socket.AF_INET))
                async with asyncio.timeout(CONNECT_PATIENCE):
                    await loop.sock_connect(server, self._target)
            ways = [_Way(self, self._client, server, self._up)]
            if server is not None:
                ways.append(_Way(self, server, self._client, self._down))
            tasks = [loop.create_task(step()) for way in ways for step in (way.read, way.write)]
            forwarding = asyncio.gather(*tasks)
            tasks += [forwarding, loop.create_task(self._wanted_stranded.wait())]
            await asyncio.wait(tasks[-2:], return_when=asyncio.FIRST_COMPLETED)
            if self._wanted_stranded.is_set():
                await _ended(tasks)
                await self._strand(server)
            else:
                forwarding.result()
                in_order = not self.has_gap
        except OSError:  # TimeoutError is one
            pass
        finally:
            await _ended(tasks)  # nobody may wait for a socket that is closed
            for side in (self._client, server):
                if side is not None:
                    _close(side, in_order)

    @property
    def is_stranded(self) -> bool:
        """Whether its client was cut off by `strand`."""
        return self._wanted_stranded.is_set()

    async def strand(self) -> None:
        """Reset the client and leave the broker alone: it hears nothing of that, and what it says is swallowed, until it gives up."""
        self._wanted_stranded.set()
        await self._stranded.wait()

    async def _strand(self, server: socket.socket | None) -> None:
        self.drop()
        if server is not None:
            while data := await asyncio.get_running_loop().sock_recv(server, CHUNK):
                self._down.swallowed += len(data)

    def drop(self) -> None:
        """Reset the client, if that was not done yet; nobody waits for this one any more."""
        _close(self._client, in_order=False)
        self._stranded.set()

    @property
    def weather(self) -> Weather:
        """That of the path."""
        return self._weather


class _Way:
    """One direction of one connection."""

    def __init__(self, relay: Relay, source: socket.socket, goal: socket.socket | None, traffic: Traffic) -> None:
        self._relay, self._weather, self._traffic = relay, relay.weather, traffic
        self._source, self._goal = source, goal
        self._under_way: deque[tuple[float, bytes | None]] = deque()  # (due, what): b"" is the end, None an end of which nobody hears
        self._size = 0
        self._moved = asyncio.Event()  # something was put in or taken out

    async def read(self) -> None:
        """Read ahead, as far as there is room, until the source ends."""
        loop, weather = asyncio.get_running_loop(), self._weather
        while True:
            while self._size >= weather.room:
                self._moved.clear()
                await self._moved.wait()
            try:
                data = await loop.sock_recv(self._source, CHUNK)
            except OSError:
                if not weather.swallowing:
                    raise
                data = b""
            if weather.swallowing:
                self._swallow(data)
                if data:
                    continue
                self._put(0.0, None)
                return
            self._put(loop.time() + weather.delay, data)
            if not data:
                return

    async def write(self) -> None:
        """Write what is due, in order, until the end has been passed on."""
        loop, weather = asyncio.get_running_loop(), self._weather
        while True:
            while not self._under_way:
                self._moved.clear()
                await self._moved.wait()
            due, data = self._under_way[0]
            while weather.delay and loop.time() < due:
                await weather.until(due)
            if data is None:
                return
            if weather.swallowing or self._goal is None:
                self._swallow(data)
            elif data:
                await self._pass_on(data, self._goal)
            else:
                self._goal.shutdown(socket.SHUT_WR)
            self._under_way.popleft()
            self._size -= len(data)
            self._moved.set()
            if not data:
                return

    def _put(self, due: float, data: bytes | None) -> None:
        self._under_way.append((due, data))
        self._size += len(data or b"")
        self._moved.set()

    def _swallow(self, data: bytes | memoryview) -> None:
        self._relay.has_gap = True
        self._traffic.swallowed += len(data)

    async def _pass_on(self, data: bytes, goal: socket.socket) -> None:
        loop, view = asyncio.get_running_loop(), memoryview(data)
        while view:
            size = await self._traffic.pace.turn(len(view))
            if self._weather.swallowing:
                self._swallow(view)
                return
            await loop.sock_sendall(goal, view[:size])
            self._traffic.passed += size
            view = view[size:]


async def _ended(tasks: list[asyncio.Future[Any]]) -> None:
    """End all of these; returns when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _ready(side: socket.socket) -> socket.socket:
    side.setblocking(False)
    side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is written goes out: the delays are ours
    return side


def _close(side: socket.socket, in_order: bool) -> None:
    """Close it: with an end that the other side sees as one, or as a cut."""
    if not in_order:
        with contextlib.suppress(OSError):  # closed already
            side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    side.close()
