"""One round of one contestant: prepare the node, let it work, check that the work was done, clear away."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cases import Case, Contestant
from benchmarks.figures import latencies, percentile
from benchmarks.node import INBOX_LIMIT, Node, wire_size
from benchmarks.processes import Failed, Process, run
from benchmarks.work import Work
from chatlib.names import escape, inbox_queue, receipts_queue
from chatlib.topology import GROUPS, USERS

__all__ = ["NODE", "Bench", "Metrics"]

Metrics = dict[str, float]
NODE = "the node itself"
PORT = Contestant("the port", "port")
CONTENT = 100  # characters of a message; about 300 bytes on the wire
RATE = 1000.0  # messages a second for the latency
WARM_UP = 0.1  # of the messages for the latency


@dataclass(slots=True)
class Bench:
    """The node, the C client if there is one, and how much is to be done."""

    node: Node
    native: Path | None
    quick: bool
    timeout: float = 300.0

    def count(self, case: Case, contestant: Contestant) -> int:
        """Return how many messages or users a round of this contestant has."""
        return max(1, round((case.quick_count if self.quick else case.count) * contestant.share))

    def round(self, case: Case, contestant: Contestant, number: int) -> Metrics:
        """Measure. Raises Failed, also where the work turns out not to be done."""
        name = f"{case.name} {contestant.name} {number}".replace(" ", "-").replace(",", "")
        count = self.count(case, contestant)
        with tempfile.TemporaryDirectory(prefix="chatlib-benchmark-") as folder:
            disk = folder if contestant.disk else ""
            if case.kind == "publish":
                return self._publish(contestant, name, count, disk)
            if case.kind == "receive":
                return self._receive(contestant, name, count, disk)
            if case.kind == "latency":
                return self._latency(contestant, name, count, disk)
            if case.kind == "fanout":
                return self._fanout(case, contestant, count)
            if case.kind == "signup":
                return self._signup(contestant, name, count)
            if case.kind == "memory":
                return self._memory(contestant, name, count)
            if case.kind == "lab":
                return self._lab(contestant, name, count)
            raise ValueError(f"{case.kind} is measured for all contestants at once")

    def prepare(self, case: Case) -> None:
        """What all rounds of a case share."""
        if case.kind == "fanout":
            self.node.add_group(_group(case), _members(case))

    def finish(self, case: Case) -> None:
        """Undo `prepare`."""
        if case.kind == "fanout":
            self.node.delete(map(inbox_queue, _members(case)))

    def _work(self, contestant: Contestant, user: str, count: int, disk: str = "") -> Work:
        return Work(
            self.node.url,
            exchange=USERS.name,
            key=escape(user),
            queue=inbox_queue(user),
            to=f"@{user}",
            count=count,
            size=wire_size(f"@{user}", CONTENT),
            content=CONTENT,
            rate=RATE,
            folder=disk,
            options=contestant.options,
        )

    def _run(self, contestant: Contestant, action: str, work: Work) -> dict[str, float]:
        return run(contestant, action, work, self.native, self.timeout)

    def _timed(self, contestant: Contestant, action: str, work: Work) -> dict[str, float]:
        """As `_run`, with the processor time of the broker (which includes connecting) as `broker`."""
        before = self.node.cpu()
        result = self._run(contestant, action, work)
        return {**result, "broker": self.node.cpu() - before}

    def _publish(self, contestant: Contestant, user: str, count: int, disk: str) -> Metrics:
        self.node.add_users([user])
        result = self._timed(contestant, "publish", self._work(contestant, user, count, disk))
        stored = self.node.depth(inbox_queue(user))
        self._forget([user])
        if not stored == count == result["confirmed"]:
            raise Failed(f"{contestant.name}: {count} published, {result['confirmed']:g} confirmed, {stored} in the queue")
        return _rate(count, result)

    def _receive(self, contestant: Contestant, user: str, count: int, disk: str) -> Metrics:
        self.node.add_users([user])
        self.node.fill(f"@{user}", count, CONTENT)
        result = self._timed(contestant, "receive", self._work(contestant, user, count, disk))
        left = self.node.depth(inbox_queue(user))
        self._forget([user])
        self.node.purge([receipts_queue("filler")])
        if left or result["received"] != count:
            raise Failed(f"{contestant.name}: {result['received']:g} of {count} received, {left} left in the queue")
        return _rate(count, result)

    def _latency(self, contestant: Contestant, user: str, count: int, disk: str) -> Metrics:
        self.node.add_users([user])
        skip = round(count * WARM_UP)
        work = self._work(contestant, user, count + skip)
        with Process(contestant, "watch", work, self.native, self.timeout) as receiver:
            receiver.answer()
            sent = self._run(contestant, "pace", self._work(contestant, user, count + skip, disk))
            arrived = receiver.answer()["arrived"]
        self._forget([user])
        if sent["confirmed"] != count + skip:
            raise Failed(f"{contestant.name}: {sent['confirmed']:g} of {count + skip} confirmed")
        try:
            times = latencies(sent["began"], RATE, arrived, skip=skip)
        except ValueError as error:
            raise Failed(f"{contestant.name}: {error}") from error
        return {f"p{percent:g}": 1000 * percentile(times, percent) for percent in (50, 99, 99.9)}

    def _fanout(self, case: Case, contestant: Contestant, count: int) -> Metrics:
        to = f"#{_group(case)}"
        work = Work(
            self.node.url,
            exchange=GROUPS.name,
            key=escape(_group(case)),
            to=to,
            count=count,
            size=wire_size(to, CONTENT),
            content=CONTENT,
            options=contestant.options,
        )
        result = self._run(contestant, "publish", work)
        stored = self.node.purge(map(inbox_queue, _members(case)))
        wanted = count * case.members
        if stored != wanted or result["confirmed"] != count:
            raise Failed(f"{contestant.name}: {count} published, {result['confirmed']:g} confirmed, {stored} of {wanted} in the inboxes")
        return {"deliveries/s": wanted / result["seconds"]}

    def _signup(self, contestant: Contestant, name: str, count: int) -> Metrics:
        users = tuple(f"{name}-{number}" for number in range(count))
        work = Work(self.node.url, users=users, options={**contestant.options, "inbox_limit": INBOX_LIMIT})
        result = self._run(contestant, "signup", work)
        if self.node.depth(inbox_queue(users[-1])) or self.node.depth(receipts_queue(users[-1])):
            raise Failed(f"{contestant.name}: new inboxes are not empty")
        return {"users/s": count / result["seconds"]}

    def _memory(self, contestant: Contestant, name: str, count: int) -> Metrics:
        users = tuple(f"{name}-{number}" for number in range(count))
        before = self.node.memory()
        work = Work(self.node.url, users=users, options={**contestant.options, "inbox_limit": INBOX_LIMIT})
        with Process(contestant, "online", work, self.native, self.timeout) as process:
            result = process.answer()
            after = self.node.memory()
            process.tell("enough")
            process.answer()
        self._forget(users)
        return {"broker": (after - before) / count / 1024, "client": result["bytes"] / count / 1024}

    def _lab(self, contestant: Contestant, name: str, seconds: int) -> Metrics:
        from benchmarks import lab_cpu  # late: it needs the extra "lab"

        users = [f"{name}-{number}" for number in range(lab_cpu.USERS)]
        self.node.add_users(users)
        try:
            return {"kernel CPU": lab_cpu.cpu(self.node, contestant.options["widgets"], seconds, users)}
        finally:
            self._forget(users)

    def recovery(self, contestants: Sequence[Contestant], number: int) -> tuple[dict[str, Metrics], list[str]]:
        """Kill the broker once, for all contestants. Return the seconds of each, under `NODE` those that the port was closed,
        and what failed. Raises Failed if a contestant was not even ready."""
        failed: list[str] = []
        users = {contestant.name: f"recovery-{contestant.name}-{number}".replace(" ", "-") for contestant in contestants}
        self.node.add_users(users.values())
        with ExitStack() as stack:
            waiting = {}
            for contestant in [*contestants, PORT]:
                work = Work(self.node.url)
                if contestant is not PORT:
                    user = users[contestant.name]
                    self.node.fill(f"@{user}", 2, CONTENT)
                    work = self._work(contestant, user, 1)
                process = Process(contestant, "recover", work, self.native, self.timeout)
                waiting[contestant.name] = stack.enter_context(process)
                process.answer()
            self.node.kill_and_start()
            port = waiting.pop(PORT.name).answer()
            result: dict[str, Metrics] = {NODE: {"s": port["first"] - port["lost"]}}
            for name, process in waiting.items():
                try:
                    result[name] = {"s": process.answer()["first"] - port["first"]}
                except Failed as error:
                    failed.append(str(error))
        self._forget(users.values())
        return result, failed

    def _forget(self, users: Iterable[str]) -> None:
        self.node.delete([queue(user) for user in users for queue in (inbox_queue, receipts_queue)])


def _rate(count: int, result: dict[str, float]) -> Metrics:
    return {
        "messages/s": count / result["seconds"],
        "client CPU": 1e6 * result["cpu"] / count,
        "broker CPU": 1e6 * result["broker"] / count,
    }


def _group(case: Case) -> str:
    return f"benchmark-{case.members}"


def _members(case: Case) -> list[str]:
    return [f"member-{case.members}-{number}" for number in range(case.members)]
