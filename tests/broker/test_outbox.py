"""The outbox over a real broker: bounded, all or none, in order, emptied by confirms, and on the disk when `send` returns."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import chatlib
from chatlib import InvalidAddress, InvalidContent, InvalidName, OutboxFull, ReceivedMessage, RetryPolicy, Settings
from chatlib.brokers import LocalBroker
from chatlib.errors import OutboxDamaged, OutboxError
from chatlib.events import CONFIRMED, RETURNED, SENT, STORED, Event
from chatlib.handled import DONE
from chatlib.store import Store
from tests.support import wait_until
from tests.wire import Cable

Unique = Callable[[str], str]


def on_disk(folder: Path, to: Path) -> list[str]:
    """The ids in the outbox as a crash would leave it now: read from a copy, since its owner has it locked."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    database = sqlite3.connect(to / "chat.sqlite3")
    try:
        return [row[0] for row in database.execute("SELECT message_id FROM outbox ORDER BY seq")]
    finally:
        database.close()


def cut_off(cable: Cable, chat: chatlib.Chat) -> None:
    cable.refusing = True
    cable.cut()
    wait_until(lambda: chat.state == "recovering", 10, "the link is lost")


def test_a_full_outbox_holds_the_sender_back_then_refuses_and_lets_him_go_on(broker: LocalBroker, unique: Unique) -> None:
    """1 ten fit while the broker is away; 2 the next waits and is refused, and nothing of it is kept; 3 one that waits when the
    broker comes back is accepted; 4 what was accepted arrives, in order, and nothing else.
    """
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=Settings(outbox_limit=10, send_timeout=0.6)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        assert chat.flush(10)
        cut_off(cable, chat)
        # 1
        for number in range(10):
            ann.send(bob.address, str(number))
        # 2
        began = time.monotonic()
        with pytest.raises(OutboxFull, match=r"nothing was accepted.*again when the broker is back") as caught:
            ann.send(bob.address, "refused")
        assert caught.value.definite and 0.5 < time.monotonic() - began < 3
        with pytest.raises(OutboxFull, match="11 messages at once do not fit"):
            ann.send_many((bob.address, "refused") for _ in range(11))
        assert chat.unconfirmed == 10
        # 3
        accepted = threading.Event()

        def persist() -> None:
            while True:
                try:
                    ann.send(bob.address, "10")
                except OutboxFull:
                    continue
                accepted.set()
                return

        thread = threading.Thread(target=persist)
        thread.start()
        assert not accepted.wait(0.3)
        cable.refusing = False
        assert accepted.wait(20)
        thread.join(5)
        # 4
        assert chat.flush(20)
        assert [message.content for message in bob.receive(timeout=1) if not message.ack()] == [str(number) for number in range(11)]


def test_many_are_accepted_together_or_not_at_all(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """One bad address, name or content among a hundred: none is accepted, none is on disk, none arrives."""
    with chatlib.connect(broker, data_dir=tmp_path / "data") as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        good = [(bob.address, str(number)) for number in range(100)]
        for error, bad in (
            (InvalidAddress, ("bob", "x")),
            (InvalidName, ("@a b", "x")),
            (InvalidContent, (bob.address, "")),
            (InvalidContent, (bob.address, "a\x00b")),
            (InvalidContent, (bob.address, "x" * 65_537)),
        ):
            with pytest.raises(error):
                ann.send_many([*good[:50], bad, *good[50:]])
            assert chat.unconfirmed == 0 and on_disk(tmp_path / "data", tmp_path / "copy") == []
        assert ann.send_many([]) == []
        sent = ann.send_many(good)
        assert [message.content for message in sent] == [content for _, content in good]
        ids = [message.message_id for message in sent]
        assert ids == sorted(ids) and len(set(ids)) == 100
        assert [message.content for message in bob.receive(limit=100, timeout=5) if not message.ack()] == [content for _, content in good]
        assert list(bob.receive(timeout=0.3)) == []


def test_when_send_returns_it_is_on_disk_and_when_confirmed_it_goes(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    """Without any broker in reach: the promise is about the disk of the sender."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    with Cable(broker.url) as cable, chatlib.connect(cable.url, data_dir=data) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        assert chat.flush(10)
        cut_off(cable, chat)
        ids = []
        for number in range(20):
            ids.append(ann.send(bob.address, str(number)).message_id)
            assert on_disk(data, copy) == ids
        ids += [sent.message_id for sent in ann.send_many((bob.address, str(number)) for number in range(20, 40))]
        assert on_disk(data, copy) == ids
        cable.refusing = False
        assert chat.flush(20)
        wait_until(lambda: on_disk(data, copy) == [], 10, "what was confirmed is taken out")
        assert [message.message_id for message in bob.receive(limit=40, timeout=5) if not message.ack()] == ids


@pytest.mark.parametrize(("sync", "level"), [(False, 1), (True, 2)])
def test_sync_is_a_disk_write_for_each_send_and_one_for_many(
    broker: LocalBroker, unique: Unique, tmp_path: Path, sync: bool, level: int
) -> None:
    """SQLite says how it commits (synchronous: 1 NORMAL, 2 FULL: fsync at each commit), and how often it was asked to."""
    with chatlib.connect(broker, data_dir=tmp_path, settings=Settings(sync=sync)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.go_offline()
        assert chat._store is not None
        database = chat._store._db
        assert database.execute("PRAGMA synchronous").fetchone() == (level,)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        statements: list[str] = []
        database.set_trace_callback(statements.append)
        for number in range(5):
            ann.send(bob.address, str(number))
        singles = [statement for statement in statements if "INTO outbox" in statement]
        assert len(singles) == 5 and not any(statement.startswith("BEGIN") for statement in statements[:1])  # each its own transaction
        assert chat.flush(10)
        wait_until(lambda: sum("DELETE FROM outbox" in statement for statement in statements) == 5, 10, "the confirmed ones are out")
        statements.clear()
        ann.send_many((bob.address, str(number)) for number in range(300))
        inserted = [number for number, statement in enumerate(statements) if "INTO outbox" in statement]
        assert len(inserted) == 300
        between = statements[inserted[0] : inserted[-1]]
        assert all("INTO outbox" in statement for statement in between), "something was committed in between"
        assert statements[inserted[0] - 1] == "BEGIN" and statements[inserted[-1] + 1] == "COMMIT"
        database.set_trace_callback(None)
        assert chat.flush(20)
        assert bob.waiting == 305


def test_what_was_left_is_sent_under_its_id_first_and_its_outcome_is_told(
    broker: LocalBroker, unique: Unique, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Closed while the broker was away; the next chat sends it before anything new. One of it was for nobody: nobody holds its
    `SentMessage` any more, so the hooks and the log say so.
    """
    ann, bob, nobody = unique("ann"), unique("bob"), unique("nobody")
    with Cable(broker.url) as cable:
        chat = chatlib.connect(cable.url, data_dir=tmp_path)
        user = chat.user(ann)
        chat.users([bob], online=False)
        assert chat.flush(10)
        cut_off(cable, chat)
        left = [user.send("@" + bob, str(number)).message_id for number in range(5)]
        lost = user.send("@" + nobody, "hello?").message_id
        chat.close(timeout=0.2)
    events: list[Event] = []
    with caplog.at_level(logging.WARNING, "chatlib.outbox"), chatlib.connect(broker, data_dir=tmp_path, on_event=events.append) as chat:
        new = chat.user(ann).send("@" + bob, "new").wait(10)
        assert chat.flush(10)
        got = [(message.message_id, message.content) for message in chat.user(bob).receive(limit=6, timeout=5) if not message.ack()]
    assert [message_id for message_id, _ in got] == [*left, new.message_id]
    for hop in (STORED, SENT, CONFIRMED):
        assert [event["message_id"] for event in events if event["hop"] == hop and event["message_id"] in left] == left
    assert [event["message_id"] for event in events if event["hop"] == RETURNED] == [lost]
    assert [record.getMessage() for record in caplog.records if lost in record.getMessage()]
    with chatlib.connect(broker, data_dir=tmp_path, on_event=events.append) as chat:
        assert chat.unconfirmed == 0 and chat.flush(1)
    assert sum(event["hop"] == STORED for event in events) == 7  # nothing was left for a third one


def test_outcomes_that_a_full_disk_refused_are_written_when_there_is_room(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Forgotten, they would all be sent again by the next process. It is said once, in one line, and not for each outcome."""
    folder, copy = tmp_path / "data", tmp_path / "copy"
    with chatlib.connect(broker, data_dir=folder) as chat:
        ann = chat.user(unique("ann"))
        tried: list[object] = []
        store = chat._store
        assert store
        with monkeypatch.context() as patch:
            patch.setattr(store, "_write_all", _refusing(store, tried))
            for number in range(5):
                ann.send(ann.address, str(number)).wait(10)
                wait_until(lambda number=number: len(tried) > number, 10, "it was tried to take it out")
            assert len(on_disk(folder, copy)) == 5
        ann.send(ann.address, "room").wait(10)
        wait_until(lambda: on_disk(folder, copy) == [], 10, "all are taken out")
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    with chatlib.connect(broker, data_dir=folder) as chat:
        assert chat.unconfirmed == 0


def _refusing(store: Store, tried: list[object]) -> Callable[[list[tuple[str, list[object]]]], None]:
    """Its `_write_all` on a disk that has room for messages, and none for taking them out."""
    write: Any = store._write_all

    def full(changes: list[tuple[str, list[object]]]) -> None:
        if changes[0][0].startswith("DELETE FROM outbox"):
            tried.append(changes)
            raise OutboxFull("the disk is full")
        write(changes)

    return full


def test_who_comes_while_the_disk_is_written_shares_the_next_write(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads send while a ninth waits for the disk: two writes for all nine, and everybody's message arrives in the order of ids."""
    with chatlib.connect(broker, data_dir=tmp_path, settings=Settings(sync=True)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        outbox, writes = chat._outbox, []
        began, may_go_on = threading.Event(), threading.Event()
        write = Store.add

        def slow(store: Store, messages: Any) -> None:
            began.set()
            assert may_go_on.wait(20)
            writes.append(len(messages))
            write(store, messages)

        monkeypatch.setattr(Store, "add", slow)
        threads = [threading.Thread(target=ann.send, args=(bob.address, "first"))]
        threads[0].start()
        assert began.wait(10)
        threads += [threading.Thread(target=ann.send, args=(bob.address, str(number))) for number in range(8)]
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(outbox._line) == 9, 10, "all of them are in line")
        may_go_on.set()
        for thread in threads:
            thread.join(20)
        assert writes == [1, 8]
        messages = list(bob.receive(limit=9, timeout=10))
        assert messages[0].content == "first" and sorted(message.content for message in messages[1:]) == [
            str(number) for number in range(8)
        ]
        assert [message.message_id for message in messages] == sorted(message.message_id for message in messages)


def test_a_write_that_fails_is_told_to_all_who_shared_it_and_nothing_of_it_is_sent(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chatlib.connect(broker, data_dir=tmp_path) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        began, may_go_on, refused = threading.Event(), threading.Event(), []
        write = Store.add

        def full(store: Store, messages: Any) -> None:
            began.set()
            assert may_go_on.wait(20)
            raise OutboxFull("the disk is full")

        def send(content: str) -> None:
            try:
                ann.send(bob.address, content)
            except OutboxFull as error:
                refused.append((content, error.definite))

        monkeypatch.setattr(Store, "add", full)
        threads = [threading.Thread(target=send, args=(str(number),)) for number in range(4)]
        threads[0].start()
        assert began.wait(10)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: len(chat._outbox._line) == 4, 10, "all of them are in line")
        may_go_on.set()
        for thread in threads:
            thread.join(20)
        assert sorted(refused) == [(str(number), True) for number in range(4)]
        monkeypatch.setattr(Store, "add", write)
        ann.send(bob.address, "after").wait(10)
        assert [message.content for message in bob.receive(limit=1, timeout=10)] == ["after"]


def test_what_a_listener_sends_while_it_hears_of_a_message_goes_behind_it(broker: LocalBroker, unique: Unique, tmp_path: Path) -> None:
    with chatlib.connect(broker, data_dir=tmp_path) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))

        def echo(event: Event) -> None:
            if event["hop"] == STORED and len(heard) < 3:
                heard.append(event["message_id"])
                ann.send(bob.address, f"echo {len(heard)}")

        heard: list[str] = []
        chat.on_event(echo)
        ann.send_many([(bob.address, "a"), (bob.address, "b")])
        assert chat.flush(10)
        contents = [message.content for message in bob.receive(limit=5, timeout=10)]
        assert sorted(contents) == ["a", "b", "echo 1", "echo 2", "echo 3"] and contents.index("a") < contents.index("b")
        assert len(set(heard)) == 3, "nobody hears twice of one"


def test_a_damaged_a_foreign_and_a_read_only_outbox_are_refused_when_connecting(broker: LocalBroker, tmp_path: Path) -> None:
    """Typed, at once, and the file is as it was; another folder serves."""
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "chat.sqlite3").write_bytes(b"this is a diary" * 300)
    with pytest.raises(OutboxDamaged, match="left as it is"):
        chatlib.connect(broker, data_dir=damaged)
    assert (damaged / "chat.sqlite3").read_bytes() == b"this is a diary" * 300
    chatlib.connect(broker, data_dir=tmp_path / "row").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "row" / "chat.sqlite3")) as database:
        database.execute("INSERT INTO outbox VALUES (1, 'id', '{}', 9e999)")
        database.commit()
    with pytest.raises(OutboxDamaged, match=r"row 1 of the table outbox.*left as it is"):
        chatlib.connect(broker, data_dir=tmp_path / "row")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutboxError, match="choose a data_dir"):
        chatlib.connect(broker, data_dir=tmp_path / "file")
    with chatlib.connect(broker, data_dir=tmp_path / "good") as chat:
        assert chat.state == "connected"


@pytest.mark.parametrize("way", ["raises", "retries"])
def test_an_ack_that_the_disk_refused_did_not_happen(
    broker: LocalBroker, unique: Unique, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A handler that acks by itself hears of the full disk, and the message comes again; its sender is told nothing before that."""
    settings = Settings(retry=RetryPolicy(base=0.1, cap=0.1))
    with chatlib.connect(broker, data_dir=tmp_path, settings=settings) as chat, chatlib.connect(broker) as other:
        bob, ann = chat.user(unique("bob")), other.user(unique("ann"))
        store, done, refused = chat._store, list[int](), list[dict[str, str]]()
        assert store
        add: Any = store.add_handled

        def full(user: str, message_id: str, attempt: int, *rest: Any) -> None:
            if attempt == DONE and not refused:
                raise OutboxFull("the disk is full")
            add(user, message_id, attempt, *rest)

        def handle(message: ReceivedMessage) -> None:
            try:
                message.ack()
            except OutboxFull:
                refused.append(sent.receipts)
                if way == "raises":
                    raise
                message.retry("no room")
                return
            done.append(message.attempt)

        monkeypatch.setattr(store, "add_handled", full)
        sent = ann.send(bob.address, "x")
        bob.on_message(handle)
        wait_until(lambda: done == [2], 15, "it came again, and was taken")
        assert refused == [{}] and len(chat.dead_letters) == 0
        wait_until(lambda: sent.receipts == {bob.name: "delivered"}, 10, "its sender is told")
