"""What was handled: known again after a restart, bounded in memory and on disk, aware of attempts."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatlib.errors import OutboxError
from chatlib.handled import DONE, Handled
from chatlib.store import Store

steps = st.lists(st.tuples(st.sampled_from(["ann", "bob"]), st.sampled_from("mno"), st.sampled_from([1, 2, 3, DONE])), max_size=30)


def test_a_message_is_seen_by_the_user_who_handled_it_only() -> None:
    handled = Handled(10)
    assert not handled.seen("bob", "m", 1)
    handled.add("bob", "m")
    assert handled.seen("bob", "m", 1) and handled.seen("bob", "m", 99)
    assert not handled.seen("ann", "m", 1)
    assert not handled.seen("bob", "n", 1)


def test_a_retry_passes_and_a_redelivery_of_the_same_attempt_does_not() -> None:
    handled = Handled(10)
    handled.add("bob", "m", 2)
    assert [handled.seen("bob", "m", attempt) for attempt in (1, 2, 3)] == [True, True, False]


@given(steps)
def test_the_highest_attempt_counts_whatever_the_order(added: list[tuple[str, str, int]]) -> None:
    handled = Handled(100)
    for user, message_id, attempt in added:
        handled.add(user, message_id, attempt)
    for user in ("ann", "bob"):
        for message_id in "mno":
            highest = max([0, *(attempt for u, m, attempt in added if (u, m) == (user, message_id))])
            for attempt in (1, 2, 3, 4):
                assert handled.seen(user, message_id, attempt) == (highest >= attempt)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(added=steps)
def test_after_a_restart_it_knows_the_same(tmp_path_factory: pytest.TempPathFactory, added: list[tuple[str, str, int]]) -> None:
    folder = tmp_path_factory.mktemp("handled")
    store = Store(folder)
    before = Handled(100, store)
    for user, message_id, attempt in added:
        before.add(user, message_id, attempt)
    store.close()
    store = Store(folder)
    after = Handled(100, store)
    store.close()
    for user in ("ann", "bob"):
        for message_id in "mno":
            for attempt in (1, 2, 3, 4):
                assert after.seen(user, message_id, attempt) == before.seen(user, message_id, attempt)


def rows_on_disk(store: Store) -> int:
    return int(store._db.execute("SELECT COUNT(*) FROM handled").fetchone()[0])


def test_it_is_bounded_in_memory_and_on_disk_and_forgets_the_oldest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handled = Handled(100, store)
    most = 0
    for number in range(1_050):
        handled.add("bob", str(number))
        most = max(most, rows_on_disk(store))
    assert len(handled) == 100
    assert most <= 200
    assert not handled.seen("bob", "949", 1)
    assert all(handled.seen("bob", str(number), 1) for number in range(950, 1_050))
    store.close()
    store = Store(tmp_path)
    again = Handled(100, store)
    assert len(again) == 100 == rows_on_disk(store)
    assert all(again.seen("bob", str(number), 1) for number in range(950, 1_050))
    store.close()


def test_it_forgets_what_was_handled_long_ago_in_memory_and_on_disk(tmp_path: Path) -> None:
    now = 1_000.0
    store = Store(tmp_path)
    handled = Handled(100, store, age=60, clock=lambda: now)
    handled.add("bob", "first")
    now += 50
    handled.add("bob", "second")
    assert handled.seen("bob", "first", 1)
    now += 20
    handled.add("bob", "third")
    assert [handled.seen("bob", each, 1) for each in ("first", "second", "third")] == [False, True, True]
    store.close()
    now += 50
    store = Store(tmp_path)
    again = Handled(100, store, age=60, clock=lambda: now)
    assert [again.seen("bob", each, 1) for each in ("first", "second", "third")] == [False, False, True]
    assert len(again) == 1 == rows_on_disk(store)
    store.close()


def test_a_smaller_limit_forgets_on_disk_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    handled = Handled(100, store)
    for number in range(90):
        handled.add("bob", str(number))
    store.close()
    store = Store(tmp_path)
    assert len(Handled(10, store)) == 10 == rows_on_disk(store)
    store.close()


def test_what_the_disk_refuses_is_not_noted_unless_it_is_to_be_remembered(tmp_path: Path) -> None:
    """An ack that raised did not happen. Where a handler has returned, at least this process must not run it again."""
    store = Store(tmp_path)
    handled = Handled(10, store)
    store.close()
    with pytest.raises(OutboxError):
        handled.add("bob", "m")
    assert not handled.seen("bob", "m", 1)
    handled.remember("bob", "m")
    assert handled.seen("bob", "m", 1)


def test_an_id_is_on_disk_when_add_returns(tmp_path: Path) -> None:
    store = Store(tmp_path)
    Handled(10, store).add("bob", "m", 3)
    copy = tmp_path / "copy"  # as a crash would leave it: the files as they are now
    copy.mkdir()
    for path in tmp_path.glob("chat.sqlite3*"):
        (copy / path.name).write_bytes(path.read_bytes())
    with contextlib.closing(sqlite3.connect(copy / "chat.sqlite3")) as database:
        assert database.execute("SELECT user, message_id, attempt FROM handled").fetchall() == [("bob", "m", 3)]
    store.close()
