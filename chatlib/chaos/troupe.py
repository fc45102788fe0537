"""The processes of a chaos run: started, told, killed, started again, and ended."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, Final

import chatlib
from chatlib import faults
from chatlib.chaos.actor import PATIENT, Options
from chatlib.chaos.cast import Cast, Role
from chatlib.chaos.judge import Judgement
from chatlib.faults import Fault
from chatlib.recorder import Recorder

__all__ = ["ACTOR", "Player", "Troupe", "sign_up"]

ACTOR: Final = (sys.executable, "-m", "chatlib.chaos.actor")
WORK: Final = (0, 0, 1, 3)
POLITE: Final = 20.0  # seconds for a process that was told to end
SETTLED: Final = 2.5  # seconds without any event: what was on its way has arrived
POLL: Final = 0.2
RARELY: Final = 2.0  # seconds between two judgements


class Player:
    """One role, and the processes that play it one after the other. Thread-safe."""

    def __init__(self, role: Role, options: Callable[[int], Options], log: Path, command: Sequence[str]) -> None:
        self.role = role
        self.lives = 0
        self.state: dict[str, Any] = {}  #: what the process told last
        self.deaths: list[str] = []  #: of processes that ended by themselves
        self._options = options
        self._log = log
        self._command = list(command)
        self._lock = threading.RLock()
        self._process: subprocess.Popen[str] | None = None
        self._sent = self._handled = 0  # by those who are dead

    def start(self) -> None:
        """Start the next life."""
        with self._lock:
            options = self._options(self.lives).to_json()
            self.lives += 1
            self.state = {}
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    [*self._command, options],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C is for whoever started them, who ends them in order
                )
            assert self._process.stdout
            threading.Thread(target=self._hear, args=(self._process, self._process.stdout), daemon=True).start()

    def _hear(self, process: subprocess.Popen[str], lines: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):  # the end of a line that SIGKILL cut off; a pipe that was closed
            for line in lines:
                state = json.loads(line)
                with self._lock:
                    if process is self._process:
                        self.state = state

    def kill(self) -> Fault:
        """SIGKILL."""
        with self._lock:
            assert self._process
            fault = faults.kill_process(self._process)
            self._bury()
            return fault

    def _bury(self) -> None:
        """The process has ended: what it did counts on."""
        process, self._process = self._process, None
        self._sent, self._handled = self.sent, self.handled
        self.state = {}
        if process is not None:
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    assert pipe
                    pipe.close()

    def look(self) -> None:
        """Has it ended by itself? That must not be; it is noted, and the next life started."""
        with self._lock:
            process = self._process
            if process is None or process.poll() is None:
                return
            last = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()][-1:]
            self.deaths.append(f"{self.role.name} ended by itself (status {process.returncode}): {' '.join(last)}")
            self._bury()
            self.start()

    def tell(self, command: str) -> None:
        """A line to the process; it does not matter if it is dying."""
        with self._lock, contextlib.suppress(OSError, ValueError):
            if self._process is not None:
                assert self._process.stdin
                self._process.stdin.write(command + "\n")
                self._process.stdin.flush()

    @property
    def sent(self) -> int:
        """Messages that were accepted by `send`, about."""
        return self._sent + int(self.state.get("sent", 0))

    @property
    def handled(self) -> int:
        """Messages that were handled, about."""
        return self._handled + int(self.state.get("handled", 0))

    def is_idle(self, seconds: float) -> bool:
        """Whether it has nothing unconfirmed, does nothing more by itself, and nothing happened in it for so long."""
        state = self.state
        return bool(state) and state["settled"] and not state["unconfirmed"] and state["idle"] >= seconds and state["link"] == "connected"

    def end(self, deadline: float) -> bool:
        """Told to end; returns whether it did, in order, by `deadline` (of `time.monotonic`), else it is killed."""
        with self._lock:
            process = self._process
            if process is None:
                return True
            self.tell("end")
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
            ended = process.wait() == 0
            self._bury()
            return ended


def sign_up(cast: Cast, broker: Any, history: Path) -> None:
    """Everybody has an inbox, and the groups their members, before the first message."""
    recorder = Recorder(history, flush_every=0)
    with recorder, chatlib.connect(broker, settings=PATIENT, on_event=recorder) as chat:
        users = dict(zip(cast.users, chat.users(cast.users, online=False), strict=True))
        for group, members in cast.members.items():
            for member in members:
                users[member].join(group)


class Troupe:
    """All of them. A context manager: nobody is left running.

    folder: where histories, data and logs go. urls(role): the broker's addresses, by the path of that role.
    rate: messages a second, all senders together. work: milliseconds that handlers take, one of them by chance.
    command: what runs an actor; its options are added.
    """

    def __init__(
        self,
        cast: Cast,
        folder: Path,
        urls: Callable[[str], list[str]],
        *,
        seed: int,
        rate: float,
        work: Sequence[int] = WORK,
        command: Sequence[str] = ACTOR,
    ) -> None:
        self.cast = cast
        self.quiet = False
        self._folder, self._urls, self._seed, self._work = folder, urls, seed, work
        self._rate = rate / max(1, sum(bool(role.senders) for role in cast.roles))
        for name in ("history", "data", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        self.players = {role.name: Player(role, self._options(role), folder / "logs" / f"{role.name}.log", command) for role in cast.roles}

    def _options(self, role: Role) -> Callable[[int], Options]:
        def options(life: int) -> Options:
            return Options(
                name=role.name,
                life=life,
                seed=self._seed,
                urls=self._urls(role.name),
                senders=list(role.senders),
                receivers=list(role.receivers),
                addresses=list(self.cast.addresses),
                members={group: list(members) for group, members in self.cast.members.items()},
                rate=self._rate,
                data_dir=str(self._folder / "data" / role.name),
                history=str(self._folder / "history" / f"{role.name}.jsonl"),
                moves=str(self._folder / "data" / f"{role.name}.moves"),
                work=list(self._work),
                quiet=self.quiet,
            )

        return options

    def start(self) -> None:
        """Everybody's first life."""
        for player in self.players.values():
            player.start()

    @property
    def is_ready(self) -> bool:
        """Whether all of them have told something: they are connected."""
        self.look()
        return all(player.state for player in self.players.values())

    def look(self) -> None:
        """See whether somebody has ended who should not have."""
        for player in self.players.values():
            player.look()

    def be_quiet(self) -> None:
        """No more messages; everybody online."""
        self.quiet = True
        for player in self.players.values():
            player.tell("quiet")

    def is_idle(self, seconds: float) -> bool:
        """Whether nothing has happened to anybody for so long."""
        return all(player.is_idle(seconds) for player in self.players.values())

    @property
    def deaths(self) -> list[str]:
        """Of those who ended by themselves."""
        return [death for player in self.players.values() for death in player.deaths]

    def count(self, what: str) -> int:
        """The sum of "sent", "handled" or "unconfirmed", about."""
        if what == "unconfirmed":
            return sum(int(player.state.get(what, 0)) for player in self.players.values())
        return sum(getattr(player, what) for player in self.players.values())

    def drain(
        self,
        judged: Callable[[], Judgement],
        *,
        seconds: float,
        ghost: float,
        still: Callable[[], bool] = lambda: False,
        on_poll: Callable[[], None] = lambda: None,
        on_doubt: Callable[[str], None] = lambda _: None,
    ) -> tuple[Judgement, bool]:
        """Until nothing moves and nothing is missing, or nothing has moved for so long that what is missing is lost.

        judged: what the records say now. still: whether the broker has anything that somebody should get: as long as it has, nothing
        is lost. ghost: seconds for what a dead connection may hold: the broker keeps what it handed to one that died unheard until two
        heartbeats are missing. Returns the judgement, and whether nothing was on its way any more within `seconds`.
        """
        self.be_quiet()
        deadline = time.monotonic() + seconds
        doubted = False
        while time.monotonic() < deadline:
            self.look()
            on_poll()
            pause = POLL
            if self.is_idle(ghost if doubted else SETTLED):
                found = judged()
                if not still():
                    if found.valid or doubted:
                        return found, True
                    doubted = True
                    on_doubt(f"not all is well, waiting for what a dead connection may hold: {found.defects}")
                pause = RARELY
            threading.Event().wait(pause)
        return judged(), False

    def end(self) -> list[str]:
        """End everybody; the names of those who had to be killed for it. Idempotent."""
        for player in self.players.values():
            player.tell("end")
        deadline = time.monotonic() + POLITE
        return [name for name, player in self.players.items() if not player.end(deadline)]

    def __enter__(self) -> Troupe:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
