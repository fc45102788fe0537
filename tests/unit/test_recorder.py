"""The recorder: nothing is dropped, what a killed process leaves is readable, and a part of a history is never judged."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib import events as hops
from chatlib.checker import check
from chatlib.errors import HistoryError
from chatlib.events import Event, Events
from chatlib.recorder import Recorder, load, stream
from tests.support import ROOT, wait_until


def sent_and_received(number: int, at: float = 1000.0) -> list[Event]:
    """The records of one message from ann to bob, without loss."""
    about = {"message_id": f"m{number:05}", "to": "@bob"}
    return [
        {"hop": hop, "at": at + number + place / 10, "user": "bob" if place > 2 else "ann", **about}
        for place, hop in enumerate([hops.STORED, hops.SENT, hops.CONFIRMED, hops.DELIVERED, hops.HANDLED, hops.ACKED])
    ]


def history(messages: int) -> list[Event]:
    return [event for number in range(messages) for event in sent_and_received(number)]


# in memory


def test_a_recorder_in_memory_keeps_what_it_was_given_and_judges_it() -> None:
    with Recorder() as recorder:
        for event in history(3):
            recorder(event)
    assert recorder.events == history(3)
    assert len(recorder) == 18
    assert recorder.verdict() == check(history(3))
    assert recorder.verdict().delivered == 3


def test_it_listens_to_the_events_of_chatlib() -> None:
    events = Events()
    recorder = Recorder()
    stop = events.listen(recorder)
    events.emit(hops.STORED, "m1", user="ann", to="@bob")
    stop()
    events.emit(hops.STORED, "m2", user="ann", to="@bob")
    assert [event["message_id"] for event in recorder.events] == ["m1"]


def test_an_empty_recorder_is_a_listener_all_the_same() -> None:
    assert bool(Recorder())
    assert Recorder().events == []


def test_after_close_events_are_passed_over_and_closing_again_does_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    recorder(history(1)[0])
    recorder.close()
    recorder(history(1)[1])
    recorder.close()
    assert recorder.events == load(tmp_path / "run.jsonl") == history(1)[:1]


def test_a_verdict_on_a_part_is_refused_when_the_rest_is_gone() -> None:
    recorder = Recorder(keep=6)
    for event in history(1):
        recorder(event)
    assert recorder.verdict().valid
    recorder(history(2)[6])
    assert recorder.events == [*history(1)[1:], history(2)[6]]
    with pytest.raises(HistoryError, match="greater keep"):
        recorder.verdict()


@pytest.mark.parametrize("keep", [0, 5])
def test_with_a_path_the_verdict_is_on_all_of_it_however_little_is_kept(tmp_path: Path, keep: int) -> None:
    with Recorder(tmp_path / "run.jsonl", keep=keep) as recorder:
        for event in history(10):
            recorder(event)
        assert recorder.verdict() == check(history(10))
        assert len(recorder.events) == keep


@pytest.mark.parametrize("wrong", [{"keep": -1}, {"keep": 0}, {"flush_every": -1.0}, {"flush_every": float("nan")}])
def test_a_recorder_that_could_keep_nothing_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"keep|flush_every"):
        Recorder(**wrong)  # type: ignore[arg-type]


# on disk


@pytest.mark.parametrize("flush_every", [0, 0.01])
def test_what_is_written_is_read_back_as_it_was(tmp_path: Path, flush_every: float) -> None:
    path = tmp_path / "new folder" / "run.jsonl"
    odd = {"hop": "x", "at": 1.5, "message_id": "", "user": "🌻\ud800\u2028\n", "none": None, "path": Path("a"), "list": [1, {"b": False}]}
    with Recorder(path, flush_every=flush_every) as recorder:
        recorder(odd)
        recorder(history(1)[0])
    assert load(path) == [{**odd, "path": "a"}, history(1)[0]]
    assert load(path).torn == 0


def test_events_reach_the_file_without_being_asked_to(tmp_path: Path) -> None:
    with Recorder(path := tmp_path / "run.jsonl", flush_every=0.01) as recorder:
        recorder(history(1)[0])
        wait_until(lambda: load(path) == history(1)[:1], 5, "the record in the file")


def test_flush_writes_now(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.jsonl", flush_every=3600) as recorder:
        recorder(history(1)[0])
        assert load(tmp_path / "run.jsonl") == []
        recorder.flush()
        assert load(tmp_path / "run.jsonl") == history(1)[:1]


def test_a_caller_who_is_too_fast_writes_himself_instead_of_filling_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chatlib.recorder.BEHIND", 10)
    with Recorder(tmp_path / "run.jsonl", flush_every=3600) as recorder:
        for event in history(2):
            recorder(event)
        assert len(load(tmp_path / "run.jsonl")) == 11


@pytest.mark.parametrize("flush_every", [0, 0.001])
def test_many_threads_lose_nothing_and_each_keeps_its_order(tmp_path: Path, flush_every: float) -> None:
    threads, each = 8, 2000
    gate = threading.Barrier(threads)

    def work(thread: int) -> None:
        gate.wait()
        for number in range(each):
            recorder({"hop": "x", "at": float(number), "message_id": "", "thread": thread})

    with Recorder(tmp_path / "run.jsonl", flush_every=flush_every) as recorder:
        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for found in (recorder.events, load(tmp_path / "run.jsonl")):
        assert len(found) == threads * each
        for thread in range(threads):
            assert [event["at"] for event in found if event["thread"] == thread] == list(range(each))


def test_close_ends_the_thread(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "run.jsonl")
    name = "recorder run.jsonl"
    assert name in [thread.name for thread in threading.enumerate()]
    recorder.close()
    assert name not in [thread.name for thread in threading.enumerate()]


def test_a_second_run_continues_the_file_and_both_are_judged_together(tmp_path: Path) -> None:
    """The first process sent, the second received: its own records alone would look like strangers'."""
    first, second = history(1)[:3], history(1)[3:]
    for part in (first, second):
        with Recorder(tmp_path / "run.jsonl") as recorder:
            for event in part:
                recorder(event)
    assert check(recorder.events).unexpected == 1
    assert recorder.verdict().valid
    assert recorder.verdict().delivered == 1
    assert load(tmp_path / "run.jsonl") == first + second


# files of processes that were killed


@given(cut=st.integers(1, 100))
def test_a_torn_last_line_is_left_out_and_counted_wherever_it_was_cut(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("torn") / "run.jsonl"
    lines = [json.dumps(event).encode() + b"\n" for event in history(1)[:2]]
    cut = min(cut, len(lines[1]) - 1)
    path.write_bytes(lines[0] + lines[1][:cut])
    whole = cut == len(lines[1]) - 1  # only the end of the line is missing
    found = load(path)
    assert (found, found.torn) == ((history(1)[:2], 0) if whole else (history(1)[:1], 1))
    assert list(stream(path)) == found
    with Recorder(path) as recorder:
        recorder(history(1)[2])
    assert load(path) == [*found, history(1)[2]]
    assert load(path).torn == 0


def test_several_files_are_one_history(tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.jsonl" for name in ("receiver", "sender")]
    for path, part in zip(paths, (history(3)[3:6], history(3)[:3]), strict=True):
        with Recorder(path) as recorder:
            for event in part:
                recorder(event)
        with path.open("a") as file:
            file.write('{"hop":')
    assert load(*paths).torn == 2
    assert check(load(*paths)) == check(stream(*paths)) == check(history(1))


@pytest.mark.parametrize("bad", ["{torn", "[1]", "7", "null", "\xff"])
def test_a_bad_line_in_the_middle_is_an_error_with_file_and_line(tmp_path: Path, bad: str) -> None:
    good = json.dumps(history(1)[0])
    (path := tmp_path / "run.jsonl").write_bytes(f"{good}\n{bad}\n{good}\n".encode("latin-1"))
    with pytest.raises(HistoryError, match=r"run\.jsonl, line 2"):
        load(path)


def test_a_file_that_cannot_be_read_or_written_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"absent\.jsonl cannot be read"):
        load(tmp_path / "absent.jsonl")
    with pytest.raises(HistoryError, match="cannot be written"):
        Recorder(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="cannot be written"):
        Recorder(tmp_path / "file" / "run.jsonl")


def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (path := tmp_path / "letter.txt").write_text("Dear Bob,\nthis is no history")
    with pytest.raises(HistoryError, match="left as it is"):
        Recorder(path)
    assert path.read_text() == "Dear Bob,\nthis is no history"


def test_a_full_disk_is_said_at_flush_verdict_and_close_and_never_passed_over() -> None:
    """/dev/full takes nothing: every write fails as on a full disk."""
    recorder = Recorder("/dev/full", keep=1, flush_every=3600)
    for event in history(1):
        recorder(event)
    with pytest.raises(HistoryError, match=os.strerror(errno.ENOSPC)):
        recorder.flush()
    with pytest.raises(HistoryError, match="incomplete"):
        recorder.verdict()
    with pytest.raises(HistoryError, match="incomplete"):
        recorder.close()


PROGRAM = """
import sys
from chatlib.recorder import Recorder
recorder = Recorder(sys.argv[1], flush_every=float(sys.argv[2]))
number = 0
while True:
    recorder({"hop": "x", "at": float(number), "message_id": "", "padding": "x" * 200})
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("flush_every", [0, 0.02])
def test_sigkill_loses_nothing_at_once_and_little_in_the_background(tmp_path: Path, flush_every: float) -> None:
    """1. A process records and says after each record that it did. 2. SIGKILL. 3. What it said is on disk: all, or a whole prefix."""
    path = tmp_path / "run.jsonl"
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(flush_every)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    said = -1
    deadline = time.monotonic() + 20
    while (said < 2000 or path.stat().st_size == 0) and time.monotonic() < deadline:
        said = int(process.stdout.readline())
    process.kill()
    said = max([said, *(int(line) for line in process.stdout.read().splitlines() if line)])
    assert process.wait() == -signal.SIGKILL
    found = load(path)
    assert [event["at"] for event in found] == list(range(len(found)))
    if flush_every == 0:
        assert len(found) >= said + 1
    else:
        assert found
    process.stdout.close()


ENDS = """
import sys
from chatlib.recorder import Recorder
recorder = Recorder(sys.argv[1], flush_every=3600)
recorder({"hop": "x", "at": 1.0, "message_id": ""})
"""


def test_a_program_that_ends_without_closing_has_written_everything(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", ENDS, str(tmp_path / "run.jsonl")], check=True, cwd=ROOT, timeout=20)
    assert load(tmp_path / "run.jsonl") == [{"hop": "x", "at": 1.0, "message_id": ""}]


# cost


def test_recording_costs_the_caller_microseconds(tmp_path: Path) -> None:
    """Measured 0.3 microseconds with a thread that writes; the limit of 20 leaves room for a busy machine."""
    event = history(1)[3]
    with Recorder(tmp_path / "run.jsonl") as recorder:
        began = time.perf_counter()
        for _ in range(20_000):
            recorder(event)
        took = time.perf_counter() - began
    assert len(load(tmp_path / "run.jsonl")) == 20_000
    assert took / 20_000 < 20e-6


def test_a_line_nested_beyond_all_bounds_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("[" * 100_000 + "\n")
    with pytest.raises(HistoryError, match="line 1"):
        load(path)
