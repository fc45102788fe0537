"""A TCP forwarder on a thread of its own: what comes to its port goes on to the target, as the weather allows.

No root and no rules in the kernel: it works wherever Python does, and hits nobody but its own clients.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any

from chatlib.brokers.ports import LOOPBACK, Ports, choose_ports
from chatlib.errors import FaultError
from chatlib.faults.relay import Relay, Traffic
from chatlib.faults.weather import Condition, Pace, Weather

__all__ = ["Forwarder"]

ANSWER = 15.0  # seconds that the loop has to do what it is told; it takes milliseconds
PORT_PATIENCE = 5.0  # seconds: a port that somebody else took while it was closed is asked for again
PORT_TRIES = 20


class Forwarder:
    """Listens on a free port of loopback and forwards to `target` (host, port). Every method may be called from any thread."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self._listener: socket.socket | None = _free_listener()
        self.port: int = self._listener.getsockname()[1]
        self._weather = Weather()
        self.up, self.down = Traffic(Pace(self._weather)), Traffic(Pace(self._weather))
        self._relays: dict[Relay, asyncio.Task[None]] = {}
        self._stranded: dict[Condition, list[Relay]] = {}
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"path {self.port}", daemon=True)
        self._thread.start()
        if not self._started.wait(ANSWER):
            raise FaultError(f"the path's thread did not come up within {ANSWER:g} s: is the machine overloaded? Try again")

    @property
    def connections(self) -> int:
        """How many connections it holds now."""
        return len(self._relays)

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def apply(self, condition: Condition) -> None:
        """Let it be so; returns when it is. Raises FaultError if this was closed."""
        if not self._do(self._apply(condition)):
            raise FaultError("this path is closed: make a new one with faults.Path(broker)")

    def lift(self, condition: Condition) -> None:
        """Let it be no longer so; returns when it is not. Nothing happens if this was closed, or for what was not applied."""
        self._do(self._lift(condition))

    def close(self) -> None:
        """Reset all connections, free the port, end the thread. Idempotent."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join(ANSWER)

    def _do(self, task: Coroutine[Any, Any, None]) -> bool:
        """Run it on the loop and wait for it; False if the loop has ended, or ends meanwhile."""
        try:
            running = asyncio.run_coroutine_threadsafe(task, self._loop)
        except RuntimeError:
            task.close()
            return False
        try:
            running.result(ANSWER)
        except CancelledError:
            return False
        except TimeoutError:
            if self.is_closed:
                return False
            raise FaultError(f"the path on port {self.port} did not answer within {ANSWER:g} s: is the machine overloaded?") from None
        return True

    # ---- on the thread ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._changing = asyncio.Lock()
        self._accepting = self._loop.create_task(self._accept())
        self._started.set()
        await self._stop.wait()
        await self._refuse()
        await self._reset(list(self._relays))

    async def _apply(self, condition: Condition) -> None:
        async with self._changing:
            self._weather.add(condition)
            if condition.stranding:
                self._stranded[condition] = [relay for relay in self._relays if not relay.is_stranded]
                await asyncio.gather(*(relay.strand() for relay in self._stranded[condition]))
            if self._weather.refusing:
                await self._refuse()
                await self._reset(list(self._relays))

    async def _lift(self, condition: Condition) -> None:
        async with self._changing:
            if condition not in self._weather:
                return
            self._weather.remove(condition)
            await self._reset(self._stranded.pop(condition, []))
            if not self._weather.swallowing:
                await self._reset([relay for relay in self._relays if relay.has_gap])
            if not self._weather.refusing and self._listener is None:
                try:
                    await self._listen()
                except FaultError:
                    self._weather.add(condition)
                    raise

    async def _listen(self) -> None:
        deadline = self._loop.time() + PORT_PATIENCE
        while self._listener is None:
            try:
                self._listener = _listener(self.port)
            except OSError as error:
                if self._loop.time() > deadline:
                    raise FaultError(f"port {self.port} of the path was taken by another program: end that, then heal() again") from error
                await asyncio.sleep(0.05)
        self._accepting = self._loop.create_task(self._accept())

    async def _refuse(self) -> None:
        """Close the port: the system says "connection refused" then, as for a broker that is not there."""
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _accept(self) -> None:
        assert self._listener
        while True:
            try:
                client, _ = await self._loop.sock_accept(self._listener)
            except OSError:  # gone already, or no file handle is left
                await asyncio.sleep(0.05)
                continue
            relay = Relay(client, self.target, self._weather, self.up, self.down)
            self._relays[relay] = task = self._loop.create_task(relay.run())
            task.add_done_callback(lambda _, relay=relay: self._gone(relay))  # type: ignore[misc]

    def _gone(self, relay: Relay) -> None:
        relay.drop()  # a task that was cancelled before its first step has closed nothing
        del self._relays[relay]

    async def _reset(self, relays: list[Relay]) -> None:
        tasks = [task for relay, task in list(self._relays.items()) if relay in relays]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listener(port: int) -> socket.socket:
    """A socket that listens on this port of loopback. Raises OSError if it is taken."""
    listener = socket.create_server((LOOPBACK, port), backlog=128)
    listener.setblocking(False)
    return listener


def _free_listener() -> socket.socket:
    """The same on a port that is free now: below the ephemeral ones, so that it can be closed and opened again."""
    for _ in range(PORT_TRIES):
        with contextlib.suppress(OSError):  # another process was quicker
            return _listener(choose_ports(Ports()).amqp)
    raise FaultError(f"no port of {LOOPBACK} could be had in {PORT_TRIES} tries: is something holding thousands of them?")
