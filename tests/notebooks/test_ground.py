"""What the lessons stand on: the setup cell, the pictures from the running broker, predictions, evidence."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest

from chatlib.brokers import LocalBroker
from chatlib.events import FAULT_BEGAN, FAULT_ENDED
from chatlib.lab import check, heard_by, machine, on_the_wire, people_verdict, predict, start_lesson, topology, wait_until, watch
from chatlib.lab.lesson import Lesson
from chatlib.lab.pictures import depth_chart, spans
from chatlib.lab.waiting import NotInTime
from chatlib.management import Management
from chatlib.topology import USERS
from chatlib.verdict import COLUMNS
from scripts import notebooks
from tests.support import process_runs


def node(lesson: Lesson) -> int:
    assert isinstance(lesson.broker, LocalBroker)
    assert lesson.broker.pid
    return lesson.broker.pid


def test_without_a_broker_the_setup_cell_says_in_a_few_lines_how_to_get_one(tmp_path: Path) -> None:
    """In a real kernel: no RabbitMQ, and a broker of others in CHATLIB_BROKER_URL, which a lesson must not break."""
    book = notebooks.read(notebooks.sources("00")[0])
    book.cells = [cell for cell in book.cells if cell.cell_type == "code"][:1]
    book.cells[0].metadata.tags = ["raises-exception"]
    notebooks.execute(
        book,
        CHATLIB_RABBITMQ_SERVER=str(tmp_path / "no-rabbitmq"),
        CHATLIB_BROKER_URL="amqp://somebody:secret@127.0.0.1:1/",
        PATH=os.environ["PATH"],
    )
    (output,) = [output for output in book.cells[0].outputs if output.output_type == "error"]
    text = "\n".join(output.traceback)
    assert output.ename == "LessonCannotStart"
    assert "apt install rabbitmq-server" in text and "conda" in text and "Then run this cell again" in text
    assert "secret" not in text
    assert len(text.splitlines()) <= 12
    nbformat.validate(book)


def test_the_topology_is_what_the_broker_has(lesson: Lesson) -> None:
    alice, bob, away = lesson.chat.users(["alice", "bob", "o|iver^<x>"])
    away.go_offline()
    for user in (bob, away):
        user.join("#team")
    alice.send("#team", "hello").wait()
    wait_until(lambda: lesson.depth("inbox.o|iver^<x>")[0] == 1, 10, "the message waits for him who is away")
    with Management(lesson.broker.management_url, login=lesson.broker.url) as management:
        others = set(management.memberships()) - {"bob", "o|iver^<x>"}
    figure = topology(lesson, "t", exchanges=["chat.groups"], producers=["alice"], skip=others)
    texts = [note.text for note in figure.layout.annotations]
    assert {"alice", "chat.groups", "inbox.bob", "inbox.o|iver^&lt;x>", "nobody", "bob", "1 waiting"} <= set(texts)
    assert texts.count("team") == 2, "one label for each of two bindings"
    assert "inbox.alice" not in texts, "she is not bound to the group"
    assert "inbox.bob" not in [note.text for note in topology(lesson, "t", exchanges=["chat.groups"], skip=["bob"]).layout.annotations]


def test_a_topology_with_many_bindings_has_one_label_for_each_key(lesson: Lesson) -> None:
    people = lesson.chat.users([f"p{number}" for number in range(4)])
    for user in people:
        user.join("#many")
        user.join("#more")
    texts = [note.text for note in topology(lesson, "t", exchanges=["chat.groups"]).layout.annotations]
    assert texts.count("many") == texts.count("more") == 1


def test_a_queue_is_sampled_and_its_faults_are_shaded(lesson: Lesson) -> None:
    carol = lesson.chat.user("carol")
    carol.go_offline()
    depth = watch(lesson, "carol")
    with lesson.fault("nobody reads"):
        for _ in range(5):
            carol.send("@carol", "note to self").wait()
        wait_until(lambda: depth.highest == 5, 10, "five are seen waiting")
    depth.stop()
    seen = len(depth.points)
    figure = depth_chart(lesson, depth, "t")
    assert max(figure.data[0].y) == 5
    assert len(figure.data[0].y) < len(depth.points), "only where something changed"
    assert [note.text for note in figure.layout.annotations] == ["nobody reads"]
    assert figure.layout.shapes[0].x0 < figure.layout.shapes[0].x1
    depth.stop()
    assert len(depth.points) == seen, "stopped"


def test_spans_pair_the_beginning_of_a_fault_with_its_end() -> None:
    history = [
        {"hop": FAULT_BEGAN, "name": "a", "at": 1.0},
        {"hop": FAULT_BEGAN, "name": "b", "at": 2.0},
        {"hop": FAULT_ENDED, "name": "a", "at": 3.0},
        {"hop": FAULT_BEGAN, "name": "a", "at": 4.0},
    ]
    assert spans(history) == [("a", 1.0, 3.0), ("b", 2.0, None), ("a", 4.0, None)]


def test_what_lies_in_a_queue_is_read_and_left_there(lesson: Lesson) -> None:
    dave = lesson.chat.user("dave")
    dave.go_offline()
    for text in ("one", "two"):
        dave.send("@dave", text).wait()
    assert [found["content"] for found in on_the_wire(lesson, "inbox.dave", 2)] == ["one", "two"]
    wait_until(lambda: dave.waiting == 2, 10, "both are back")
    dave.go_online()
    assert [message.content for message in dave.receive(limit=2, timeout=10)] == ["one", "two"]


def test_evidence_is_a_row_for_each_experiment_and_exercises_are_none(lesson: Lesson) -> None:
    """Who joined before an experiment is known to it; a message counts where it was sent, wherever it arrives."""
    erin, fred = lesson.chat.users(["erin", "fred"])
    lesson.section("before")
    fred.join("#evidence")
    erin.send("#evidence", "1").wait()
    lesson.section("after")
    erin.send("#evidence", "2").wait()
    erin.send("#evidence", "3").wait()
    for message in fred.receive(limit=3, timeout=10):
        message.ack()
    check("0.1", "confirmed")
    table = lesson.evidence()
    assert tuple(table.columns) == COLUMNS
    assert list(table.index)[-2:] == ["before", "after"], "exercises are no experiment"
    columns = ["attempted", "confirmed", "delivered", "lost", "unexpected"]
    assert table.loc["before", columns].tolist() == [1, 1, 1, 0, 0]
    assert table.loc["after", columns].tolist() == [2, 2, 2, 0, 0]
    assert lesson.verdict("after").unjudged == 0
    assert heard_by(lesson.records("after")) == {("erin", "fred"): 2}


def test_the_people_count_what_they_did_not_hear() -> None:
    said = ["a", "b", "c"]
    assert people_verdict(said, {"bob": said, "carol": said}).valid
    verdict = people_verdict(said, {"bob": ["a", "c"], "carol": ["b", "b"]})
    assert (verdict.lost, verdict.duplicated, verdict.delivered) == (3, 1, 3)


def test_a_prediction_is_kept_and_compared() -> None:
    open_one = predict("How many?", ..., choices=(1, 2))
    assert "(1 / 2)" in repr(open_one) and "No answer yet" in repr(open_one)
    assert "You had not answered" in repr(open_one.compare(2))
    assert "none of the choices" in repr(predict("How many?", 3, choices=(1, 2)))
    given = predict("How <many>?", 2)
    assert given.compare(2).hit and not given.compare(3).hit
    assert "&lt;many&gt;" in given._repr_html_()


def test_what_does_not_happen_in_time_is_named_with_what_was_seen() -> None:
    with pytest.raises(NotInTime, match="pigs fly; last seen: 0") as caught:
        wait_until(lambda: 0, 0.05, "pigs fly")
    assert caught.value._render_traceback_() == [f"✘ {caught.value}"]


def test_the_machine_is_looked_at() -> None:
    table = machine().data.set_index("what")
    assert {"Python", "RabbitMQ", "lab packages"} <= set(table.index)
    assert table.loc["RabbitMQ", "state"] == "✔"


def test_the_lab_knows_the_exchange_that_its_lessons_name() -> None:
    assert USERS.name == "chat.users"
    assert any("chat.users" in source.read_text() for source in notebooks.sources("01"))


def test_starting_again_closes_what_an_earlier_run_left_and_closing_twice_does_no_harm(lesson: Lesson) -> None:
    """Last of all, since it ends the lesson that the others use."""
    process, folder = node(lesson), lesson.broker.data_dir  # type: ignore[attr-defined]
    with start_lesson("00") as second:
        assert not process_runs(process)
        assert not Path(folder).exists()
        assert process_runs(node(second))
        assert "closed" in repr(lesson) and "ready" in repr(second)
        process = node(second)
    second.close()
    assert not process_runs(process)
    result = check("0.1", "confirmed")
    assert result.state == "not yet"
    assert "setup cell" in result.why
