"""The file in `data_dir`: kept over the death of the process, owned by one at a time, refused with advice, never made worse."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chatlib.errors import OutboxDamaged, OutboxError, OutboxFull, OutboxLocked
from chatlib.store import Store
from tests.support import ROOT


def rows(first: int, count: int, size: int = 10) -> list[tuple[str, bytes, float]]:
    return [(f"id-{number:06}", b"x" * size + str(number).encode(), float(number)) for number in range(first, first + count)]


def bodies(messages: list[tuple[str, bytes, float]]) -> list[tuple[bytes, float]]:
    return [(body, at) for _, body, at in messages]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@contextlib.contextmanager
def other_process(code: str, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run `code` in another Python; it is there when it has printed a line, and is killed at the end."""
    command = [
        sys.executable,
        "-c",
        f"import sys\nfrom chatlib.store import Store\n{code}\nprint('ready', flush=True)\nsys.stdin.read()",
        *args,
    ]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout and process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_what_was_added_comes_back_in_order_after_reopening(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for row in rows(0, 5):
        store.add([row])
    store.add(rows(5, 500))
    store.remove([f"id-{number:06}" for number in range(0, 505, 2)])
    store.close()
    again = Store(tmp_path)
    assert again.waiting() == bodies(rows(0, 505)[1::2])
    again.add(rows(1000, 2))
    assert again.waiting()[-2:] == bodies(rows(1000, 2))
    again.close()


def test_many_are_all_or_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(OutboxError):
        store.add([*rows(0, 3), ("id", None, 0.0)])  # type: ignore[list-item]
    assert store.waiting() == []
    store.add(rows(0, 1))  # it goes on
    assert len(store.waiting()) == 1
    store.close()


def test_adding_nothing_and_removing_strangers_is_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add([])
    store.remove([])
    store.remove(["nobody", "knows"])
    assert store.waiting() == []
    store.close()
    store.close()


def test_threads_share_it(tmp_path: Path) -> None:
    store = Store(tmp_path)
    threads = [threading.Thread(target=lambda n=n: [store.add([row]) for row in rows(n * 100, 100)]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = store.waiting()
    assert sorted(waiting, key=lambda row: row[1]) == bodies(rows(0, 800))
    for n in range(8):  # each thread's in its order
        mine = [at for _, at in waiting if n * 100 <= at < n * 100 + 100]
        assert mine == sorted(mine)
    store.close()


@pytest.mark.parametrize("sync", [False, True])
def test_what_was_accepted_survives_the_death_of_the_process(tmp_path: Path, sync: bool) -> None:
    """SIGKILL between two calls: everything that returned is there, nothing of what did not."""
    code = f"s = Store(sys.argv[1], sync={sync})\ns.add_handled('bob', 'm', 1, 5.0)\n"
    code += "for n in range(300): s.add([(str(n), str(n).encode(), float(n))])"
    with other_process(code, str(tmp_path)) as process:
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL
    store = Store(tmp_path)
    assert store.waiting() == [(str(n).encode(), float(n)) for n in range(300)]
    assert store.handled(10, 0.0) == [("bob", "m", 1, 5.0)]
    store.close()


def test_receipts_are_kept_with_the_id_of_what_was_handled_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_handled("bob", "m1", 1, 5.0, [("r1", "ann", b"1")])
    with pytest.raises(OutboxError):
        store.add_handled("bob", "m2", 1, 5.0, [("r2", "ann", None)])  # type: ignore[list-item]
    store.add_receipts([("r3", "cid", b"3"), ("r4", "ann", b"4")])
    assert store.handled(10, 0.0) == [("bob", "m1", 1, 5.0)]
    assert store.waiting_receipts() == [("ann", b"1"), ("cid", b"3"), ("ann", b"4")]
    store.remove_receipts(["r1", "r4", "nobody's"])
    store.close()
    again = Store(tmp_path)
    assert again.waiting_receipts() == [("cid", b"3")]
    again.close()


# one process at a time


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    with other_process("s = Store(sys.argv[1])\ns.add([('a', b'1', 1.0)])", str(tmp_path)) as process:
        with pytest.raises(OutboxLocked, match=r"another process or Chat.*data_dir"):
            Store(tmp_path)
        process.kill()
        process.wait(10)
        store = Store(tmp_path)
    assert store.waiting() == [(b"1", 1.0)]
    store.close()


def test_a_second_chat_of_the_same_process_is_refused_too(tmp_path: Path) -> None:
    first = Store(tmp_path)
    with pytest.raises(OutboxLocked):
        Store(tmp_path)
    first.add(rows(0, 1))  # and the first is none the worse for it
    first.close()
    Store(tmp_path).close()


def test_two_folders_are_two_outboxes(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "deep" / "other")
    one.add(rows(0, 1))
    assert other.waiting() == []
    one.close()
    other.close()


def test_a_forked_child_cannot_write_and_cannot_hurt_its_parent(tmp_path: Path) -> None:
    """1 the child is refused; 2 it ends the ordinary way, which closes what Python holds; 3 the parent dies by SIGKILL after more
    writes, and nothing of them is missing. SQLite forbids to carry a connection over a fork: closing it there would throw the
    parent's journal away.
    """
    script = """
import os, sys
from chatlib.errors import OutboxError
from chatlib.store import Store
store = Store(sys.argv[1])
store.add([("before", b"before", 1.0)])
child = os.fork()
if child == 0:
    try:
        store.add([("child", b"child", 2.0)])
    except OutboxError as refusal:
        assert "fork" in str(refusal), refusal
        store.close()
        del store
        sys.exit(7)
    sys.exit(1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
store.add([("after", b"after", 3.0)])
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = Store(tmp_path)
    assert store.waiting() == [(b"before", 1.0), (b"after", 3.0)]
    store.close()


# what cannot be used


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A well-formed outbox of 200 messages of 2 kB."""
    store = Store(tmp_path)
    store.add(rows(0, 200, 2000))
    for number in range(200):
        store.add_handled("bob", f"id-{number}", 1, 5.0)
    store.close()
    return tmp_path / "chat.sqlite3"


def test_damage_is_found_at_opening_said_and_left_as_it_is(filled: Path) -> None:
    good = filled.read_bytes()
    assert len(good) > 100_000
    broken = {
        "no database at all": b"this is a diary, not an outbox\n" * 100,
        "the first page is zeros": bytes(4096) + good[4096:],
        "half of it is missing": good[: len(good) // 2],
        "a page in the middle is noise": good[: 4096 * 3] + bytes(range(256)) * 16 * 5 + good[4096 * 8 :],
    }
    for what, content in broken.items():
        filled.write_bytes(content)
        before = digest(filled)
        with pytest.raises(OutboxDamaged, match=r"left as it is.*move it away") as caught:
            Store(filled.parent)
        assert str(filled) in str(caught.value), what
        assert digest(filled) == before, what
    filled.write_bytes(good)
    store = Store(filled.parent)
    assert len(store.waiting()) == 200
    store.close()


def test_a_file_of_the_first_version_goes_on(filled: Path) -> None:
    """It did not know when a message was handled: from now on that is when it was opened, so nothing is forgotten too early."""
    with contextlib.closing(sqlite3.connect(filled)) as database:
        database.executescript("ALTER TABLE handled DROP COLUMN at; PRAGMA user_version=1;")
    began = int(time.time())
    for _ in range(2):
        store = Store(filled.parent)
        handled = store.handled(1_000, began - 1)
        assert [row[:3] for row in handled] == [("bob", f"id-{number}", 1) for number in range(200)]
        assert all(began <= at <= time.time() for *_, at in handled)
        assert len(store.waiting()) == 200
        store.close()


def test_a_file_of_a_later_version_is_left_to_it(filled: Path) -> None:
    with contextlib.closing(sqlite3.connect(filled)) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(OutboxDamaged, match=r"schema 99.*knows 2"):
        Store(filled.parent)


def test_somebody_elses_database_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "chat.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(OutboxDamaged, match="recipes"):
        Store(tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]


def test_an_outbox_without_its_tables_is_damaged(filled: Path) -> None:
    with contextlib.closing(sqlite3.connect(filled)) as database:
        database.execute("DROP TABLE outbox")
    with pytest.raises(OutboxDamaged, match="outbox"):
        Store(filled.parent)


def test_no_name_is_not_the_current_folder() -> None:
    with pytest.raises(OutboxError, match="data_dir is empty"):
        Store("")


def test_a_data_dir_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutboxError, match="choose a data_dir that is a writable folder"):
            Store(place)


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that an ordinary user can enter; while the test runs as root it has that user's rights (root may write anywhere)."""
    folder = Path(tempfile.mkdtemp(prefix="chatlib-store-"))
    folder.chmod(0o755)
    was_root = os.geteuid() == 0
    try:
        yield folder
    finally:
        if was_root:
            os.seteuid(0)
        for path in folder.rglob("*"):
            path.chmod(0o755)
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def become_nobody() -> None:
    if os.geteuid() == 0:
        os.seteuid(65534)


def test_a_folder_that_may_not_be_written_is_refused(nobody: Path) -> None:
    nobody.chmod(0o555)
    become_nobody()
    for place in (nobody, nobody / "below"):
        with pytest.raises(OutboxError, match=r"writable|permissions"):
            Store(place)


def test_a_file_that_may_not_be_written_is_refused(nobody: Path) -> None:
    store = Store(nobody)
    store.add(rows(0, 3))
    store.close()
    (nobody / "chat.sqlite3").chmod(0o444)
    nobody.chmod(0o555)
    become_nobody()
    with pytest.raises(OutboxError, match="permissions"):
        Store(nobody)


# no room


def test_a_full_disk_refuses_the_message_and_keeps_the_others(tmp_path: Path) -> None:
    """A disk of its own of 2 MB, where the tests may mount one; else SQLite's own limit, which it reports by the same code."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False).returncode == 0
    )
    try:
        store = Store(disk)
        if not mounted:
            store._db.execute("PRAGMA journal_mode=DELETE")  # the limit is looked at when pages are made, not in the journal
            store._db.execute("PRAGMA max_page_count=250")
        accepted = []

        def fill() -> None:
            for row in rows(0, 10_000, 1000):
                store.add([row])
                accepted.append(row)

        with pytest.raises(OutboxFull, match=r"full.*not accepted"):
            fill()
        assert 100 < len(accepted) < 3_000
        with pytest.raises(OutboxError):
            store.add(rows(20_000, 2_000, 1000))
        assert store.waiting() == bodies(accepted)
        store.remove([message_id for message_id, _, _ in accepted[:-5]]) if not mounted else None
        store.close()
        again = Store(disk)
        assert again.waiting() == bodies(accepted if mounted else accepted[-5:])
        again.close()
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=True)


def _fill(folder: str, out: multiprocessing.connection.Connection) -> None:
    store = Store(folder)
    accepted = 0
    try:
        for row in rows(0, 10_000, 1000):
            store.add([row])
            accepted += 1
    except OutboxError as exc:
        out.send((accepted, type(exc).__name__, str(exc)))
    else:
        out.send((accepted, "", ""))


def test_a_limit_on_file_sizes_refuses_the_message_too(tmp_path: Path) -> None:
    """RLIMIT_FSIZE (ulimit -f): the write fails with EFBIG; in a process of its own, since it holds for every file."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    process = context.Process(target=_fill, args=(str(tmp_path), theirs))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        process.start()
        assert ours.poll(20)
        accepted, kind, text = ours.recv()
        process.join(10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert kind in ("OutboxFull", "OutboxError") and "chat.sqlite3" in text
    assert accepted > 50
    store = Store(tmp_path)
    assert store.waiting() == bodies(rows(0, accepted, 1000))
    store.close()


def test_what_could_not_be_removed_can_be_removed_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk while the outcomes are written: they are known the next time, too, or the next process would send all again."""
    store = Store(tmp_path)
    store.add(rows(0, 3))

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_transaction", full)
        with pytest.raises(OutboxFull):
            store.remove(["id-000000", "id-000001"])
    store.remove(["id-000000", "id-000001"])
    assert store.waiting() == bodies(rows(2, 1))
    store.close()


def test_bits_that_flip_within_the_ids_are_damage(tmp_path: Path) -> None:
    """SQLite's own check looks at its pages, not at what is in them."""
    store = Store(tmp_path)
    store.add(rows(0, 100))
    store.close()
    path = tmp_path / "chat.sqlite3"
    path.write_bytes(path.read_bytes().replace(b"id-000050", b"id-\xff00050"))
    with pytest.raises(OutboxDamaged, match="left as it is"):
        Store(tmp_path)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("UPDATE outbox SET at=9e999", "outbox"),
        ("UPDATE outbox SET at=-5", "outbox"),
        ("UPDATE outbox SET at=1e300", "outbox"),
        ("UPDATE outbox SET at='then'", "outbox"),
        ("UPDATE outbox SET at=x'ff'", "outbox"),
        ("UPDATE outbox SET body=5", "outbox"),
        ("UPDATE outbox SET message_id=x'ff'", "outbox"),
        ("UPDATE outbox SET seq=9223372036854775807", "outbox"),
        ("UPDATE receipts SET sender=x'616263'", "receipts"),
        ("UPDATE receipts SET receipt_id=x'ff'", "receipts"),
        ("UPDATE receipts SET body=5", "receipts"),
        ("UPDATE receipts SET seq=9223372036854775807", "receipts"),
        ("UPDATE handled SET user=x'ff'", "handled"),
        ("UPDATE handled SET message_id=x'00'", "handled"),
        ("UPDATE handled SET attempt='often'", "handled"),
        ("UPDATE handled SET attempt=9e99", "handled"),
        ("UPDATE handled SET at=9e999", "handled"),
        ("UPDATE handled SET at='zz'", "handled"),
    ],
)
def test_a_row_that_is_none_of_ours_is_damage_though_the_file_is_well_formed(tmp_path: Path, change: str, where: str) -> None:
    """Said, and left as it is: before, such a row raised in the middle of connecting, or its message was lost as one that was refused."""
    store = Store(tmp_path)
    store.add(rows(0, 1))
    store.add_handled("bob", "m", 1, 5.0, [("r", "ann", b"1")])
    store.close()
    path = tmp_path / "chat.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(change)
        file.commit()
    before = digest(path)
    for _ in range(2):
        with pytest.raises(OutboxDamaged, match=rf"row \d+ of the table {where} .*left as it is.*move it away"):
            Store(tmp_path)
    assert digest(path) == before


def test_a_body_that_was_repaired_as_text_is_taken(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "chat.sqlite3")) as file:
        file.execute("INSERT INTO outbox VALUES (1, 'id', 'text', 5)")
        file.execute("INSERT INTO receipts VALUES (1, 'r', 'ann', 'text')")
        file.commit()
    store = Store(tmp_path)
    assert store.waiting() == [(b"text", 5.0)]
    assert store.waiting_receipts() == [("ann", b"text")]
    store.close()


def test_a_folder_that_cannot_be_named_is_refused() -> None:
    with pytest.raises(OutboxError, match="choose a data_dir"):
        Store("a\0b")
