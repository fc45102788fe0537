"""A checker that never finds anything proves nothing: with each guarantee switched off in turn, the same faults are found out.

One broker, and six troupes of actors on it side by side: the library as it is, and five in which one guarantee is missing (`mutants`).
All have the same faults at the same time: the network is slow and is cut with much on its way; the receivers are killed; the broker
is killed while messages wait; the senders are killed before it is back.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chatlib import faults
from chatlib.chaos.cast import Cast, Role
from chatlib.chaos.judge import Judgement, judge
from chatlib.chaos.run import histories
from chatlib.chaos.stage import Stage
from chatlib.chaos.troupe import Troupe, sign_up
from chatlib.recorder import stream
from tests.faults.mutants import GUARANTEES
from tests.support import process_runs, wait_until

FOUND_BY = {"nothing": None, "confirms": "lost", "acks": "lost", "dedupe": "duplicated", "persistence": "lost", "outbox": "forgotten"}
RATE = 60.0  # messages a second in each troupe
WORK = (30,)  # milliseconds: more than there is time for, so that whoever is killed has some in hand


@dataclass
class Company:
    """One troupe, with its own paths to the broker."""

    guarantee: str
    folder: Path
    stage: Stage
    troupe: Troupe

    def kill(self, role: str) -> None:
        self.troupe.players[role].kill()

    def start(self, role: str) -> None:
        self.troupe.players[role].start()

    def sent(self) -> int:
        return self.troupe.count("sent")

    def judged(self) -> Judgement:
        return judge(stream(*histories(self.folder)))


def cast_of(guarantee: str) -> Cast:
    """Nobody of one troupe is known to another."""
    receivers = (f"{guarantee}-bob", f"{guarantee}-cid")
    roles = (Role("sender-1", (f"{guarantee}-ann",), ()), Role("receiver-1", (), receivers))
    return Cast(roles, {f"#{guarantee}": receivers})


@pytest.fixture(scope="module")
def judgements(new_broker: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judgement]:
    """The run: 1 messages flow; 2 all that is on its way is lost; 3 receivers, broker and senders are killed; 4 the drain."""
    with contextlib.ExitStack() as everything:
        broker = everything.enter_context(new_broker())
        companies = []
        for guarantee in GUARANTEES:
            folder = tmp_path_factory.mktemp(guarantee)
            cast = cast_of(guarantee)
            stage = everything.enter_context(Stage("local", [role.name for role in cast.roles], broker))
            command = (sys.executable, "-m", "tests.faults.mutants", guarantee)
            troupe = Troupe(cast, folder, stage.urls, seed=1, rate=RATE, work=WORK, command=command)
            sign_up(cast, broker, folder / "history" / "setup.jsonl")
            companies.append(Company(guarantee, folder, stage, everything.enter_context(troupe)))
        # 1
        for company in companies:
            company.troupe.start()
        for company in companies:
            wait_until(lambda company=company: company.troupe.is_ready and company.sent() > 20, 60, f"{company.guarantee} is at work")
        # 2
        paths = [path for company in companies for found in company.stage.paths.values() for path in found]
        with contextlib.ExitStack() as slow:
            for path in paths:
                slow.enter_context(faults.delay(path, 0.3))
            flow(companies, 60)
            with contextlib.ExitStack() as apart:
                for path in paths:
                    apart.enter_context(faults.cut(path))
        flow(companies, 60)
        # 3
        for company in companies:
            company.kill("receiver-1")
        flow(companies, 60)
        pid = broker.pid
        broker.kill()
        assert not process_runs(pid)
        flow(companies, 30)
        for company in companies:
            company.kill("sender-1")
        broker.start()
        for company in companies:
            company.start("sender-1")
            company.start("receiver-1")
        for company in companies:
            wait_until(lambda company=company: company.troupe.is_ready, 60, f"{company.guarantee} is at work again")
        # 4
        for company in companies:
            company.troupe.be_quiet()
        found = {}
        for company in companies:
            found[company.guarantee], in_time = company.troupe.drain(company.judged, seconds=90, ghost=4.0)
            assert in_time and not company.troupe.deaths, (company.guarantee, company.troupe.deaths)
            assert company.troupe.end() == []
        broker.kill()
    return found


def flow(companies: list[Company], count: int) -> None:
    """Until each troupe has sent so many more."""
    before = {company.guarantee: company.sent() for company in companies}
    deadline = time.monotonic() + 60
    for company in companies:
        wait_until(
            lambda company=company: company.sent() >= before[company.guarantee] + count,
            deadline - time.monotonic(),
            f"{company.guarantee} has sent {count} more",
        )


@pytest.mark.timeout(240)  # the first has the run in it
@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_a_missing_guarantee_is_found_out(judgements: dict[str, Judgement], guarantee: str) -> None:
    judgement = judgements[guarantee]
    print(guarantee, judgement.sentence)
    assert judgement.verdict.attempted > 200 and judgement.verdict.handled > 50
    assert judgement.verdict.duplicated_on_wire > 0 or guarantee != "nothing", "the faults did not hurt"
    expected = FOUND_BY[guarantee]
    assert judgement.valid == (expected is None), judgement.sentence
    if expected is not None:
        assert judgement.defects[expected] > 0
    else:
        assert judgement.defects == {}
