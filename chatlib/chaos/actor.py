"""One process of a chaos run: ``python -m chatlib.chaos.actor OPTIONS`` (JSON, see `Options`).

Its users send, receive, fail, go offline and online, join and leave, by chance; whatever they do they write down at once, so that
SIGKILL leaves nothing of it behind in a buffer. Commands come by standard input, a line each: "quiet" (send nothing more, everybody
online) and "end". The end of standard input is the death of whoever started it: then it ends, too. How it goes is told on standard
output, a line of JSON a few times a second.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import chatlib
from chatlib import ChatUser, ReceivedMessage, RetryPolicy, Settings
from chatlib.chaos.moves import Moves
from chatlib.events import HANDLED, STORED, Event
from chatlib.recorder import Recorder

__all__ = ["EFFECT", "PATIENT", "Actor", "Options", "main"]

EFFECT: Final = "chaos.effect"
"""A handler did what it is there for: user, message_id, life. Not of chatlib's making, so that the two can be compared."""

PATIENT: Final = Settings(
    connect_timeout=600.0,
    request_timeout=600.0,
    send_timeout=600.0,
    prefetch=50,
    heartbeat=10,
    retry=RetryPolicy(attempts=4, base=0.2, cap=1.0),
)
"""Whoever lives through chaos waits for the broker as long as it takes."""

TELL: Final = 0.25  # seconds
PAUSES: Final = (0.3, 2.0)  # seconds between two moves (offline, online, join, leave)
LARGE: Final = "x" * 6_000  # the broker keeps bodies above 4 kB in another file than small ones
HUGE: Final = "x" * 40_000
POISON: Final = 99


@dataclass(frozen=True)
class Options:
    """What one life of a process is to do. urls: of the broker, by its own path. rate: messages a second. quiet: only receive.

    work: milliseconds that a handler may be asked to take, each as often as it is named.
    """

    name: str
    life: int
    seed: int
    urls: list[str]
    senders: list[str]
    receivers: list[str]
    addresses: list[str]
    members: dict[str, list[str]]
    rate: float
    data_dir: str
    history: str
    moves: str
    work: list[int]
    quiet: bool = False

    def to_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))


class Actor:
    """See the module."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.rng = random.Random(f"{options.seed} {options.name} {options.life}")
        self.quiet = threading.Event()
        self.ended = threading.Event()
        self.connected = threading.Event()
        self.sent = self.handled = 0
        self.last_event = time.monotonic()
        self.recorder = Recorder(options.history, keep=0, flush_every=0)
        self.moves = Moves(Path(options.moves), options.receivers, options.members)
        if options.quiet:
            self.quiet.set()

    def run(self) -> None:
        """Live until told to end."""
        options = self.options
        self.thread(self.obey)
        name = f"chaos {options.name}"
        with chatlib.connect(options.urls, data_dir=options.data_dir, settings=PATIENT, on_event=self.listen, name=name) as self.chat:
            names = list(dict.fromkeys(options.senders + options.receivers))
            self.users = dict(zip(names, self.chat.users(names), strict=True))
            for receiver in options.receivers:
                self.users[receiver].on_message(self.handler(receiver))
            self.moves.finish(self.users, self.recorder)
            threads = [self.thread(self.tell), self.thread(self.move)]
            if options.senders:
                threads.append(self.thread(self.talk))
            self.connected.set()
            self.ended.wait()
            for thread in threads:
                thread.join(20)
        self.recorder.close()

    def obey(self) -> None:
        """Commands, until one says that it is over, or nobody is there any more to say so."""
        for line in sys.stdin:
            if line.strip() == "quiet":
                self.quiet.set()
            elif line.strip() == "end":
                break
        self.quiet.set()
        self.ended.set()
        if not self.connected.wait(1.0):
            os._exit(0)  # no broker answers, perhaps for ever

    def thread(self, run: Callable[[], None]) -> threading.Thread:
        """Run it; what goes wrong in it is the end of the process, and is seen as such."""

        def guarded() -> None:
            try:
                run()
            except BaseException:  # noqa: BLE001  whatever it was: nothing can be handed on from a thread, so the process ends with it
                if not self.ended.is_set():
                    traceback.print_exc()
                    sys.stderr.flush()
                    os._exit(3)

        thread = threading.Thread(target=guarded, name=run.__name__, daemon=True)
        thread.start()
        return thread

    def listen(self, event: Event) -> None:
        """Every hop of every message, and of the link."""
        self.recorder(event)
        self.last_event = time.monotonic()
        if event["hop"] == STORED:
            self.sent += 1
        elif event["hop"] == HANDLED:
            self.handled += 1

    # ---- what its users do -------------------------------------------------------------------------------------------------

    def talk(self) -> None:
        """Send at about the rate asked for, mostly one by one, sometimes many at once."""
        rng, options = self.rng, self.options
        senders = [self.users[name] for name in options.senders]
        number = 0
        debt = 0.0
        while not self.quiet.wait(max(0.0, rng.expovariate(options.rate) + debt)):
            count = rng.randrange(20, 80) if rng.random() < 0.01 else 1
            user = rng.choice(senders)
            messages = []
            for _ in range(count):
                number += 1
                messages.append((rng.choice(options.addresses), self.content(number)))
            if count == 1:
                user.send(*messages[0])
            else:
                user.send_many(messages)
            debt = (count - 1) / options.rate

    def content(self, number: int) -> str:
        """What is said also tells the handler what to do: how often to fail, and how many milliseconds to take."""
        rng = self.rng
        luck = rng.random()
        fail = POISON if luck < 0.002 else rng.randint(1, 2) if luck < 0.03 else 0
        luck = rng.random()
        padding = HUGE if luck < 0.01 else LARGE if luck < 0.08 else ""
        return f"fail={fail} work={rng.choice(self.options.work)} {self.options.name}.{self.options.life}.{number} {padding}"

    def handler(self, user: str) -> Callable[[ReceivedMessage], None]:
        """Fails as often as the message asks for; then its effect is a record."""
        rng = random.Random(f"{self.options.seed} {user} {self.options.life}")
        life = self.options.life

        def handle(message: ReceivedMessage) -> None:
            fail, work = (int(word.partition("=")[2]) for word in message.content.split(" ", 2)[:2])
            if message.attempt <= fail:
                raise RuntimeError(f"asked to fail at attempt {message.attempt}")
            if work:
                threading.Event().wait(work / 1000)
            if rng.random() < 0.1:
                message.mark_read()
            self.recorder({"hop": EFFECT, "at": time.time(), "message_id": message.message_id, "user": user, "life": life})

        return handle

    def move(self) -> None:
        """Go offline and online, join and leave; at the end everybody is online."""
        rng = self.rng
        receivers = [self.users[name] for name in self.options.receivers]
        away: set[ChatUser] = set()
        while receivers and not self.quiet.wait(rng.uniform(*PAUSES)):
            user = rng.choice(receivers)
            if user in away:
                away.discard(user)
                user.go_online()
            elif rng.random() < 0.6:
                away.add(user)
                user.go_offline()
            else:
                self.moves.change(user, rng.choice(list(self.options.members)), self.recorder)
        self.quiet.wait()
        for user in away:
            user.go_online()
        self.settled = True

    # ---- what is told of it ------------------------------------------------------------------------------------------------

    settled = False  #: nobody moves or sends any more

    def tell(self) -> None:
        """How it goes, a few times a second."""
        while True:
            state = {
                "settled": self.settled,
                "unconfirmed": self.chat.unconfirmed,
                "idle": round(time.monotonic() - self.last_event, 2),
                "sent": self.sent,
                "handled": self.handled,
                "link": self.chat.state.value,
            }
            try:
                sys.stdout.write(json.dumps(state) + "\n")
                sys.stdout.flush()
            except OSError:  # whoever started it is gone, and the end of standard input says the same
                return
            if self.ended.wait(TELL):
                return


def main(arguments: list[str]) -> None:
    """The program."""
    Actor(Options(**json.loads(arguments[0]))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
