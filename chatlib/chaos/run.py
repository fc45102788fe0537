"""Playing a schedule: the processes, the faults in their lanes, the drain, the judgement."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any, Final

from chatlib.chaos.depth import Depth
from chatlib.chaos.judge import Judgement, judge
from chatlib.chaos.result import ChaosResult
from chatlib.chaos.schedule import LANES, Schedule, Step
from chatlib.chaos.stage import Stage
from chatlib.chaos.troupe import ACTOR, Troupe, sign_up
from chatlib.errors import ChatError, FaultError
from chatlib.events import FAULT_BEGAN, FAULT_ENDED
from chatlib.faults import Fault
from chatlib.names import user_of_queue
from chatlib.recorder import Recorder, stream

__all__ = ["Progress", "histories", "play"]

READY: Final = 60.0  # seconds for all processes to connect
WARM: Final = 1.0  # seconds of messages before the first fault
TRIES: Final = 15.0  # seconds that a fault may be impossible: whom it is meant for may just be coming back
GHOST: Final = 40.0  # seconds: the broker keeps what it handed to a connection that died unheard until two heartbeats are missing
POLL: Final = 0.2


@dataclass(frozen=True, slots=True)
class Progress:
    """phase: "setup", "faults", "drain" or "judge". done, total: faults. under_way: those not healed yet. sent, handled: about."""

    phase: str
    done: int = 0
    total: int = 0
    under_way: tuple[str, ...] = ()
    sent: int = 0
    handled: int = 0
    unconfirmed: int = 0


def play(
    schedule: Schedule,
    folder: str | PathLike[str],
    *,
    broker: Any = None,
    drain: float = 300.0,
    ghost: float = GHOST,
    command: Sequence[str] = ACTOR,
    on_progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> ChaosResult:
    """Play `schedule`, keep everything in `folder` (made; must be empty), and judge.

    broker: a running broker to break, of the schedule's kind; None: one of its own, ended with the run.
    drain: seconds that what was sent has to arrive after the last fault. ghost: seconds to wait for what seems lost before it is.
    command: what runs an actor. say: called with a line for people for each thing that happens, on any thread.
    Raises ChatError where the run cannot begin (no such broker, the folder is not empty). On Ctrl-C everything is healed and ended first.
    """
    home = Path(folder)
    if home.exists() and any(home.iterdir()):
        raise ChatError(f"{home} is not empty: give a folder of its own to each run")
    schedule.check("this schedule")
    (home / "history").mkdir(parents=True, exist_ok=True)
    schedule.save(home / "schedule.json")
    run = _Run(schedule, home, on_progress or (lambda _: None), say or (lambda _: None))
    return run.play(broker, drain, ghost, command)


def histories(folder: Path) -> list[Path]:
    """The histories in the folder of a run."""
    return sorted((folder / "history").glob("*.jsonl"))


class _Run:
    def __init__(self, schedule: Schedule, folder: Path, on_progress: Callable[[Progress], None], say: Callable[[str], None]) -> None:
        self.schedule, self.folder = schedule, folder
        self.on_progress, self._say = on_progress, say
        self.over = threading.Event()  # no further fault begins, and those under way are healed at once
        self.began = time.monotonic()
        self.happened: list[Step] = []
        self.problems: list[str] = []
        self.under_way: dict[int, str] = {}
        self.deleted: set[str] = set()  # senders
        self.faults = Recorder(folder / "history" / "faults.jsonl", keep=0, flush_every=0)
        self.stage: Stage
        self.depth: Depth
        self.troupe: Troupe

    def say(self, text: str) -> None:
        """A line for people."""
        self._say(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def show(self, phase: str) -> None:
        """Tell how it goes."""
        troupe = self.troupe
        done = len(self.happened) - len(self.under_way)
        counts = {name: troupe.count(name) for name in ("sent", "handled", "unconfirmed")}
        self.on_progress(Progress(phase, max(0, done), len(self.schedule.steps), tuple(self.under_way.values()), **counts))

    def play(self, broker: Any, drain: float, ghost: float, command: Sequence[str]) -> ChaosResult:
        schedule, cast = self.schedule, self.schedule.cast
        self.on_progress(Progress("setup", total=len(schedule.steps)))
        roles = [role.name for role in cast.roles]
        with self.faults, Stage(schedule.broker, roles, broker) as self.stage:
            sign_up(cast, self.stage.broker, self.folder / "history" / "setup.jsonl")
            with (
                Troupe(cast, self.folder, self.stage.urls, seed=schedule.seed, rate=schedule.rate, command=command) as self.troupe,
                Depth(self.stage, self.folder / "depth.jsonl") as self.depth,
            ):
                self.troupe.start()
                self.wait_for_all()
                began = time.monotonic()
                try:
                    self.all_lanes()
                    settled = time.monotonic()
                    judgement = self.drain(drain, ghost)
                except BaseException:
                    self.over.set()
                    raise
                ended = time.monotonic()
                unwilling = self.troupe.end()
                self.problems += self.troupe.deaths
                self.problems += [f"{name} did not end when it was told to" for name in unwilling]
            self.keep_logs()
        played = replace(schedule, steps=tuple(sorted(self.happened, key=lambda step: step.number)))
        played.save(self.folder / "schedule.json")
        names = ChaosResult.counted([step.fault for step in self.happened])
        result = ChaosResult(self.folder, played, names, ended - began, ended - settled, judgement, tuple(self.problems))
        result.save()
        return result

    def wait_for_all(self) -> None:
        """Until every process is connected."""
        deadline = time.monotonic() + READY
        while not self.troupe.is_ready:
            if time.monotonic() > deadline or self.troupe.deaths:
                what = "; ".join(self.troupe.deaths) or f"not all processes came up within {READY:g} s"
                raise ChatError(f"the run cannot begin: {what} (their logs are in {self.folder / 'logs'})")
            threading.Event().wait(POLL)
            self.show("setup")

    # ---- faults ------------------------------------------------------------------------------------------------------------

    def all_lanes(self) -> None:
        """All faults, each lane on a thread; returns when everything is healed."""
        lanes = [threading.Thread(target=self.lane, args=(self.schedule.lane(name),), name=f"chaos {name}") for name in LANES]
        begun = time.monotonic()
        threading.Event().wait(WARM)
        try:
            for thread in lanes:
                thread.start()
            while any(thread.is_alive() for thread in lanes):
                self.troupe.look()
                self.show("faults")
                limit = self.schedule.seconds
                if limit is not None and time.monotonic() - begun > limit:
                    self.over.set()
                threading.Event().wait(POLL)
        except BaseException:
            self.over.set()
            for thread in lanes:
                if thread.ident is not None:
                    thread.join()
            raise

    def lane(self, steps: Sequence[Step]) -> None:
        for step in steps:
            if self.over.wait(step.after):
                return
            try:
                self.fault(step)
            except ChatError as error:
                self.problems.append(f"fault {step.number} ({step}): {error}")
                self.say(f"! {step}: {error}")
            except BaseException as error:
                self.problems.append(f"fault {step.number} ({step}): {error!r}")
                self.over.set()
                raise
            finally:
                self.under_way.pop(step.number, None)

    def fault(self, step: Step) -> None:
        """From the beginning of a fault to its end."""
        player = self.troupe.players.get(step.target) if step.lane == "process" else None
        with contextlib.ExitStack() as healing:
            found = self.inflict(step)
            self.note(FAULT_BEGAN, found[0].began, step)
            self.happened.append(step)
            self.under_way[step.number] = str(step)
            self.say(f"{len(self.happened):3}/{len(self.schedule.steps)}  {step}")
            for fault in found:
                healing.enter_context(fault)
            if player is not None:
                healing.callback(player.start)
            self.over.wait(step.lasts)
        over = max((fault.ended or time.time() for fault in found), default=time.time())
        self.note(FAULT_ENDED, time.time() if player is not None else over, step)
        if over > found[0].began:
            self.say(f"        healed {step} after {over - found[0].began:.1f} s")

    def inflict(self, step: Step) -> list[Fault]:
        """Try until it can be done."""
        if step.fault == "delete_queue":
            self.deleted.add(user_of_queue(step.target) or "")
        deadline = time.monotonic() + TRIES
        while True:
            try:
                return self.stage.inflict(step, lambda name: self.troupe.players[name].kill())
            except FaultError:
                if time.monotonic() > deadline or self.over.wait(0.5):
                    raise

    def note(self, hop: str, at: float, step: Step) -> None:
        self.faults({"hop": hop, "at": at, "message_id": "", "name": step.fault, "target": step.target, "number": step.number})

    # ---- the end -----------------------------------------------------------------------------------------------------------

    def judged(self) -> Judgement:
        """What the records say now."""
        self.show("judge")
        return judge(stream(*histories(self.folder)), deleted=frozenset(self.deleted))

    def drain(self, seconds: float, ghost: float) -> Judgement:
        """Until all has arrived; that not all did is a problem of the run only if something is still on its way."""
        self.say("no more faults: draining")
        found, in_time = self.troupe.drain(
            self.judged,
            seconds=seconds,
            ghost=ghost,
            still=lambda: bool(self.depth.waiting),
            on_poll=lambda: self.show("drain"),
            on_doubt=self.say,
        )
        if not in_time:
            left = ", ".join(f"{count} in {queue}" for queue, count in sorted(self.depth.waiting.items())) or "nothing"
            unconfirmed = self.troupe.count("unconfirmed")
            self.problems.append(f"the drain did not end in {seconds:g} s: {unconfirmed} publishes unconfirmed; on the broker: {left}")
        return found

    def keep_logs(self) -> None:
        """The brokers' last words, for whoever has to find out."""
        for number, node in enumerate(self.stage.nodes):
            lines = getattr(node, "log_lines", None)
            if lines is not None:
                with contextlib.suppress(ChatError, OSError):
                    (self.folder / "logs" / f"broker-{number}.log").write_text("\n".join(lines(100_000)) + "\n")
