"""Many queues of work on few threads: each in order, none held up by another, none ended by an error."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator

import pytest

from chatlib.workers import BATCH, Mailbox, Workers
from tests.support import unique_name, wait_until


@pytest.fixture
def workers() -> Iterator[Workers]:
    pool = Workers(4, unique_name("pool"))
    yield pool
    pool.close()


def test_each_mailbox_keeps_its_order_and_runs_on_one_thread_at_a_time(workers: Workers) -> None:
    got: dict[int, list[int]] = defaultdict(list)
    inside: dict[int, int] = defaultdict(int)
    overlaps = []

    def handler(number: int) -> Mailbox:
        def handle(item: object) -> None:
            inside[number] += 1
            if inside[number] > 1:
                overlaps.append(number)
            got[number].append(item)  # type: ignore[arg-type]
            inside[number] -= 1

        return Mailbox(workers, handle)

    boxes = [handler(number) for number in range(20)]

    def fill(part: int) -> None:
        for item in range(1_000):
            for box in boxes[part::4]:
                box.put(item)

    threads = [threading.Thread(target=fill, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_until(lambda: sum(map(len, got.values())) == 20_000, 20, "everything is handled")
    assert all(items == list(range(1_000)) for items in got.values())
    assert not overlaps


def test_one_that_blocks_does_not_hold_up_the_others(workers: Workers) -> None:
    gate, entered, done = threading.Event(), threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        gate.wait(20)

    Mailbox(workers, block).put(1)
    assert entered.wait(5)
    Mailbox(workers, lambda _: done.set()).put(1)
    assert done.wait(5)
    gate.set()


def test_one_that_is_never_empty_shares_its_thread() -> None:
    """One thread for two: the busy one gives way after a batch."""
    pool = Workers(1, unique_name("pool"))
    steps, seen, stop = 0, list[int](), threading.Event()

    def busy() -> bool:
        nonlocal steps
        steps += 1
        return not stop.is_set()

    endless = pool.serial(busy)
    endless.wake()
    Mailbox(pool, lambda _: seen.append(steps)).put(1)
    wait_until(lambda: seen, 5, "the other one had its turn")
    stop.set()
    assert endless.wait_idle(5)
    assert seen[0] % BATCH == 0
    pool.close()


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3), KeyboardInterrupt()])
def test_an_error_ends_neither_the_thread_nor_the_queue(workers: Workers, error: BaseException) -> None:
    """A handler that calls sys.exit() must not silence its user for ever."""
    got = []

    def handle(item: object) -> None:
        if item == 1:
            raise error
        got.append(item)

    box = Mailbox(workers, handle)
    for item in (0, 1, 2):
        box.put(item)
    wait_until(lambda: got == [0, 2], 5, "the one after the error is handled")
    box.put(3)
    wait_until(lambda: got == [0, 2, 3], 5, "and so is what comes later")
    assert box.wait_idle(5)


def test_closing_waits_for_nobody_and_starts_nothing_more(workers: Workers) -> None:
    gate, entered, later = threading.Event(), threading.Event(), threading.Event()

    def block(_: object) -> None:
        entered.set()
        gate.wait(20)

    Mailbox(workers, block).put(1)
    assert entered.wait(5)
    workers.close()
    Mailbox(workers, lambda _: later.set()).put(1)
    gate.set()
    assert not later.wait(0.2)
    workers.close()
