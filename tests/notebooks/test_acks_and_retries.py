"""What lessons 5 and 6 stand on: clerks that are really killed, a network that fails, their pictures; and what wrong answers are told."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chatlib import ReceivedMessage, RetryPolicy, Settings
from chatlib.events import DELIVERED
from chatlib.lab import (
    BadPayment,
    Book,
    Clerk,
    Network,
    attempts,
    book_chart,
    calls_chart,
    check,
    ladder,
    open_book,
    story,
    wait_settled,
    wait_until,
)
from chatlib.lab.clerk import KILLED
from chatlib.lab.lesson import Lesson
from chatlib.lab.pictures import spans
from chatlib.sent import SentMessage
from chatlib.user import ChatUser
from tests.notebooks.test_exercises import refused
from tests.support import process_runs, unique_name

QUICK = RetryPolicy(attempts=3, base=0.1, cap=0.8, factor=8, jitter=False)


def work_first(message: Any, book: Any) -> None:
    book.add(message)
    message.ack()


def ack_first(message: Any, book: Any) -> None:
    message.ack()
    book.add(message)


def work_once(message: Any, book: Any) -> None:
    book.add_once(message)
    message.ack()


def fails(message: Any, book: Any) -> None:
    raise RuntimeError("no pen")


@pytest.fixture(scope="module", autouse=True)
def faults_end_here(lesson: Lesson) -> Iterator[None]:
    """What was killed here stays dead: tests of other modules get a lesson without these faults in its history."""
    yield
    lesson.close()


@pytest.fixture
def leave(lesson: Lesson) -> Callable[[str, list[Any]], list[SentMessage]]:
    """Leaves payments of these amounts with a user, and returns when the broker has them."""
    shop = lesson.chat.user("shop")

    def send(name: str, amounts: list[Any]) -> list[SentMessage]:
        orders = [json.dumps({"order": f"P{number:02}", "amount": amount}) for number, amount in enumerate(amounts, 1)]
        return [sent.wait() for sent in shop.send_many((f"@{name}", order) for order in orders)]

    return send


# ---- clerks ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("work", "place", "remembers", "lost", "duplicated", "on_wire"),
    [
        (ack_first, "before the work", False, 1, 0, 0),
        (work_first, "before the ack", False, 0, 1, 1),
        (work_first, "before the ack", True, 0, 0, 1),
        (work_first, "after the work", True, 0, 1, 1),
        (work_once, "after the work", False, 0, 0, 1),
    ],
)
def test_what_a_death_costs_depends_on_where_it_comes(
    lesson: Lesson,
    leave: Callable[..., list[SentMessage]],
    work: Callable[..., None],
    place: str,
    remembers: bool,
    lost: int,
    duplicated: int,
    on_wire: int,
) -> None:
    """1 a real process, really dead; 2 what it had in hand, the prefetch of 3, comes back, all of it flagged; 3 the book and the
    checker agree on what that cost; 4 the picture shows it.
    """
    name, book = unique_name("bank"), open_book(lesson)
    lesson.chat.users([name], online=False)
    clerk, section = Clerk(lesson, work, book, name=name, prefetch=3, remembers=remembers), unique_name("section")
    lesson.section(section)
    leave(name, [10] * 8)
    acked = 3 if work is ack_first else 2
    # 1
    clerk.start(halt_at=3, place=place)
    assert clerk._process
    pid = clerk._process.pid
    assert process_runs(pid)
    assert lesson.depth(f"inbox.{name}") == (8 - acked - 3, 1)
    clerk.kill()
    assert not process_runs(pid) and not clerk.is_alive
    assert any(fault == KILLED for fault, _, _ in spans(lesson.records(section)))
    # 2
    assert lesson.depth(f"inbox.{name}") == (8 - acked, 0)
    clerk.start()
    clerk.finish()
    flagged = {event["message_id"] for event in lesson.records(section) if event["hop"] == DELIVERED and event["redelivered"]}
    assert len(flagged) == 3
    # 3
    verdict = lesson.verdict(section)
    assert (verdict.confirmed, verdict.lost, verdict.duplicated, verdict.duplicated_on_wire) == (8, lost, duplicated, on_wire)
    assert len(book) == 8 - lost + duplicated
    assert book.twice == ["P03"] * duplicated
    # 4
    figure = book_chart(lesson, [section], "t")
    texts = [note.text for note in figure.layout.annotations]
    assert "killed" in texts
    assert ("3 is missing" in texts) == bool(lost)
    assert sorted(trace.name for trace in figure.data) == sorted(
        ["in the book"] + ["in the book again"] * duplicated + ["dropped as known"] * (remembers and not duplicated)
    )


def test_a_clerk_that_cannot_work_says_why(lesson: Lesson, leave: Callable[..., list[SentMessage]]) -> None:
    name = unique_name("bank")
    lesson.chat.users([name], online=False)
    clerk = Clerk(lesson, fails, open_book(lesson), name=name)
    leave(name, [10])
    clerk.start()
    clerk.finish()
    assert clerk.errors == ["RuntimeError: no pen"]
    with pytest.raises(ValueError, match="before the ack"):
        clerk.start(halt_at=1, place="at lunch")


def test_a_clerk_whose_text_is_no_use_elsewhere_does_not_start(lesson: Lesson) -> None:
    namespace: dict[str, Any] = {}
    name = unique_name("bank")
    lesson.chat.users([name], online=False)

    @namespace.setdefault("mark", lambda function: function)
    def marked(message: Any, book: Any) -> None: ...

    clerk = Clerk(lesson, marked, open_book(lesson), name=name)
    clerk.start()
    assert not clerk.is_alive
    assert clerk.errors == ["NameError: name 'namespace' is not defined"]


def test_a_book_is_read_while_others_write_in_it(tmp_path: Path) -> None:
    ours, theirs = Book(tmp_path / "book.sqlite3"), Book(tmp_path / "book.sqlite3", "bank")
    theirs._db.execute("INSERT INTO book VALUES (1.0, 'bank', 'id', 'P01', 10)")
    assert [line.order for line in ours.news()] == ["P01"] and ours.news() == []
    assert (len(ours), ours.twice) == (1, [])
    theirs._db.execute("INSERT INTO book VALUES (2.0, 'bank', 'id', 'P01', 10)")
    assert len(ours.news()) == 1 and ours.twice == ["P01"]
    ours.close()
    theirs.close()


# ---- the network, and what is retried --------------------------------------------------------------------------------------


@pytest.fixture
def bank(lesson: Lesson) -> Iterator[ChatUser]:
    """A bank that tries three times, with a name of its own."""
    name = unique_name("bank")
    with lesson.connect(name, settings=Settings(retry=QUICK)) as chat:
        yield chat.user(name)


def test_a_dependency_that_fails_a_number_of_times_is_tried_once_more(
    lesson: Lesson, bank: ChatUser, leave: Callable[..., list[SentMessage]]
) -> None:
    """1 the story of one that was retried and of one that died; 2 the table; 3 the others were not held up."""
    network, section = Network(lesson), unique_name("section")
    bank.on_message(network.pay)
    lesson.section(section)
    network.fail(2)
    (first,) = leave(bank.name, [10])
    wait_settled(lesson)
    others = leave(bank.name, [20, "ten", 30])
    wait_settled(lesson, section)
    # 1
    assert story(lesson, first).data["what then"].tolist() == ["again in 0.1 s", "again in 0.82 s", ""]
    last = story(lesson, others[1]).data.iloc[-1]
    assert (last["attempt"], last["what happened"], last["what then"]) == (3, "BadPayment: 'ten' is no amount", "to the dead letters")
    # 2
    assert attempts(lesson, section).to_dict("index") == {section: {"at attempt 1": 2, "at attempt 3": 1, "dead": 1}}
    # 3
    assert network.paid == ["P01", "P01", "P03"]
    assert len(network.calls) == 3 + 2 + 3
    lesson.chat.dead_letters.purge(others[1].message_id)


def test_the_ladder_shows_where_messages_wait(lesson: Lesson, leave: Callable[..., list[SentMessage]]) -> None:
    """A payment that waits again and again, always as long, is a dot on that rung."""
    network, name = Network(lesson), unique_name("bank")
    policy = RetryPolicy(attempts=100, base=0.8, factor=1, cap=0.8, jitter=False)
    bank = lesson.connect(name, settings=Settings(retry=policy)).user(name)
    bank.on_message(network.pay)
    network.down()
    leave(name, [10])

    def waits() -> Any:
        figure = ladder(lesson, name, "t")
        return figure if figure.data else None

    figure = wait_until(waits, 20, "it waits on the ladder")
    network.up()
    (dots,) = figure.data
    assert len(dots.x) == 1
    texts = [note.text for note in figure.layout.annotations]
    assert {"inbox." + name[:11] + "…", "dead-letters", "100 ms", "820 ms", "1"} <= set(texts)
    wait_until(lambda: network.paid == ["P01"], 20, "it is paid")


def test_calls_are_counted_against_the_time_of_the_outage(lesson: Lesson, bank: ChatUser, leave: Callable[..., list[SentMessage]]) -> None:
    network = Network(lesson, capacity=10)
    bank.on_message(network.pay)
    network.down()
    leave(bank.name, [10] * 5)
    wait_until(lambda: len(network.calls) == 5, 10, "all have failed")
    network.up()
    wait_until(lambda: len(network.paid) == 5, 10, "all are paid")
    figure = calls_chart({"one": network}, "t")
    assert {trace.name: sum(trace.y) for trace in figure.data} == {"paid": 5, "refused": len(network.calls) - 5}
    assert figure.layout.shapes[0].x0 == 0 < figure.layout.shapes[0].x1


def test_a_network_that_can_take_ten_refuses_the_eleventh(lesson: Lesson) -> None:
    network = Network(lesson, capacity=10)
    network._filled += 3600  # as if no time went by
    told = [network._has_room() for _ in range(11)]
    assert told.count(True) <= 10 and not told[-1]


# ---- exercises -------------------------------------------------------------------------------------------------------------


def stub(*_: Any) -> Any:
    return ...


def test_stubs_are_not_yet_right_and_not_wrong_either(lesson: Lesson) -> None:
    answers: dict[str, Any] = {
        "5.1": (..., ..., ...), "5.2": ..., "5.3": stub, "5.4": stub, "6.1": (...,) * 4, "6.2": (..., ..., ...), "6.3": stub, "6.4": ...,
    }  # fmt: skip
    for exercise, answer in answers.items():
        result = check(exercise, answer)
        assert result.state == "not yet", repr(result)


def test_wrong_numbers_meet_what_the_broker_did(lesson: Lesson) -> None:
    refused("5.1", (3, 6, 4), why="not 6 wait right after it", evidence="7 wait right after it")
    refused("5.1", 7, why="three numbers", evidence="")
    refused("5.2", {"a", "b", "d", "e"}, why="b) does harm", evidence="once gives 990, twice gives 980")
    refused("5.2", {"a", "d"}, why="e) does no harm", evidence="the same came out")
    refused("5.2", {"z"}, why="set of letters", evidence="'z'")
    refused("6.1", (0.1, 0.2, 0.4, 0.8), why="after attempt 3 is not 0.4 s", evidence="0.3")
    refused("6.2", (30, 9, 1), why="not 30 calls", evidence="12 calls, 9 handled, 1 dead")


def each_time(message: Any, db: Any) -> None:
    amount = json.loads(message.content)["amount"]
    with db:
        db.execute("UPDATE account SET balance = balance - ?", (amount,))


def in_two_transactions(message: Any, db: Any) -> None:
    amount = json.loads(message.content)["amount"]
    if not db.execute("SELECT 1 FROM seen WHERE message_id = ?", (message.message_id,)).fetchone():
        with db:
            db.execute("UPDATE account SET balance = balance - ?", (amount,))
        with db:
            db.execute("INSERT INTO seen VALUES (?)", (message.message_id,))


def mark_first(message: Any, db: Any) -> None:
    amount = json.loads(message.content)["amount"]
    with db:
        new = db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (message.message_id,)).rowcount
    if new:
        with db:
            db.execute("UPDATE account SET balance = balance - ?", (amount,))


def without_commit(message: Any, db: Any) -> None:
    amount = json.loads(message.content)["amount"]
    db.execute("UPDATE account SET balance = balance - ?", (amount,))


def misspelt(message: Any, db: Any) -> None:
    db.execute("UPDATE konto SET balance = 0")


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (each_time, "more than once", "12 payments of 10"),
        (in_two_transactions, "more than once", "12 payments of 10"),
        (mark_first, "not at all", "12 payments of 10"),
        (without_commit, "not at all, or it was not committed", "1000 are left of 1000"),
        (misspelt, "raised an exception", "no such table: konto"),
    ],
)
def test_work_that_is_not_idempotent_is_told_what_is_left_in_the_account(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    refused("5.3", answer, why=why, evidence=evidence)


def test_two_clerks_with_a_memory_each_have_to_be_broken_as_was_asked(lesson: Lesson) -> None:
    def nobody(one: Clerk, two: Clerk) -> None:
        return None

    def both_live(one: Clerk, two: Clerk) -> None:
        one.start()
        two.start()

    def in_the_middle(one: Clerk, two: Clerk) -> None:
        one.start(halt_at=1, place="after the work")
        one.kill()
        two.start()

    def nobody_goes_on(one: Clerk, two: Clerk) -> None:
        one.start(halt_at=1)
        one.kill()

    refused("5.4", nobody, why="start both clerks", evidence="the book is empty")
    refused("5.4", both_live, why="in the book once", evidence="5 lines, 5 orders")
    refused("5.4", in_the_middle, why="let him finish his work", evidence="after the work")
    refused("5.4", nobody_goes_on, why="start the other one", evidence="no clerk is at work")


def lets_all_out(message: ReceivedMessage, network: Network) -> None:
    network.pay(message)


def swallows(message: ReceivedMessage, network: Network) -> None:
    try:
        network.pay(message)
    except Exception:
        return


def rejects_all(message: ReceivedMessage, network: Network) -> None:
    try:
        network.pay(message)
    except Exception as error:
        message.reject(str(error))


def forgets_the_bad(message: ReceivedMessage, network: Network) -> None:
    try:
        network.pay(message)
    except BadPayment:
        return


@pytest.mark.parametrize(
    ("answer", "why", "evidence"),
    [
        (lets_all_out, "reject it at the first attempt", "tried 3 times"),
        (swallows, "do not swallow the error", "acked, and paid: []"),
        (rejects_all, "may come back", "nobody answers"),
        (forgets_the_bad, "belongs in the dead letters", "acked"),
    ],
)
def test_a_handler_that_is_not_careful_is_told_what_became_of_the_payments(
    lesson: Lesson, answer: Callable[..., Any], why: str, evidence: str
) -> None:
    before = len(lesson.chat.dead_letters)
    refused("6.3", answer, why=why, evidence=evidence)
    assert len(lesson.chat.dead_letters) == before, "what the check made it has cleared away"


def test_a_policy_that_spares_the_network_is_no_storm(lesson: Lesson) -> None:
    refused("6.4", "often", why="a RetryPolicy", evidence="often")
    refused("6.4", RetryPolicy(attempts=50, base=0.1, cap=5), why="no wait longer than 0.8 s", evidence="up to 5.1 s")
    refused("6.4", RetryPolicy(attempts=2, base=0.1, cap=0.1), why="more attempts", evidence="40 calls")
