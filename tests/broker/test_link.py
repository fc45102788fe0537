"""The supervised link over a real broker: two named connections, recovery that keeps order and loses nothing, an end that is prompt."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import pytest

import chatlib
from chatlib import ChatClosed, InvalidName, LinkState, OutcomeUnknown, Settings
from chatlib.brokers import LocalBroker
from chatlib.events import LINK, UNKNOWN, Event
from tests.support import wait_until
from tests.wire import Cable, close_connections, connections_of, management

Unique = Callable[[str], str]


def test_a_chat_is_two_connections_with_its_name_whatever_the_number_of_users(broker: LocalBroker, unique: Unique) -> None:
    with chatlib.connect(broker, name=unique("named")) as chat, management(broker) as client:
        for user in chat.users([unique("user") for _ in range(20)]):
            user.send(user.address, "x")
        wait_until(lambda: len(connections_of(client, chat.name)) == 2, 15, "the management API lists both")
        assert sorted(connections_of(client, chat.name).values()) == [f"{chat.name} consume", f"{chat.name} publish"]
    with management(broker) as client:
        wait_until(lambda: not connections_of(client, chat.name), 15, "both are closed")


@pytest.mark.parametrize("character", ["x", "🦊"])
def test_the_longest_name_works_and_a_longer_one_is_refused_at_once(broker: LocalBroker, unique: Unique, character: str) -> None:
    longest = character * (255 // len(character.encode()))
    with chatlib.connect(broker, name=longest) as chat:
        ann = chat.user(unique("ann"))
        ann.send(ann.address, "x").wait(10)
        assert [message.content for message in ann.receive(limit=1, timeout=5)] == ["x"]
        assert chat.reconnects == 0
    began = time.monotonic()
    with pytest.raises(InvalidName, match="255 bytes"):
        chatlib.connect(broker, name=longest + character)
    assert time.monotonic() - began < 2


def test_order_and_count_hold_through_three_forced_closings(broker: LocalBroker, unique: Unique) -> None:
    """5,000 messages of one sender to one group and 1,000 to one user, the broker closing the connections three times in between:
    every one is confirmed, and handled once, in order.
    """
    events: list[Event] = []
    with chatlib.connect(broker, name=unique("closed")) as chat:
        chat.on_event(lambda event: events.append(event) if event["hop"] in (UNKNOWN, LINK) else None)
        group = "#" + unique("team")
        ann, bob, cid = (chat.user(unique(name)) for name in ("ann", "bob", "cid"))
        got: dict[str, list[int]] = {"group bob": [], "group cid": [], "user bob": []}
        for user, label in ((bob, "bob"), (cid, "cid")):
            user.join(group)

            def handler(message: chatlib.ReceivedMessage, label: str = label) -> None:
                got[f"{'group' if message.group_id else 'user'} {label}"].append(int(message.content))

            user.on_message(handler)
        sent = []
        for number in range(5_000):
            sent.append(ann.send(group, str(number)))
            if number % 5 == 0:
                sent.append(ann.send(bob.address, str(number)))
            if number in (1_000, 2_500, 4_000):
                before = chat.reconnects
                close_connections(broker, chat.name)
                sent += [cid.send(bob.address, str(-more)) for more in range(50)]  # into the middle of the loss
                wait_until(lambda before=before: chat.reconnects > before, 15, "the link is made anew")
        assert chat.flush(30)
        assert {message.state for message in sent} == {"confirmed"}
        wait_until(lambda: len(got["group bob"]) >= 5_000 and len(got["group cid"]) >= 5_000 and len(got["user bob"]) >= 1_150, 30, "all")
        assert chat.reconnects >= 3
        states = [event["state"] for event in events if event["hop"] == LINK]
        assert states.count("recovering") >= 3 and states[-1] == "connected"
    assert got["group bob"] == got["group cid"] == list(range(5_000))
    assert [number for number in got["user bob"] if number > 0] == list(range(5, 5_000, 5))
    assert [-number for number in got["user bob"] if number < 0] == list(range(1, 50)) * 3


def test_what_was_in_flight_at_a_cut_has_an_unknown_outcome_and_is_sent_again(broker: LocalBroker, unique: Unique) -> None:
    """The cable is cut in the middle of a frame, three times, without a farewell."""
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        unknown: list[Event] = []
        chat.on_event(lambda event: unknown.append(event) if event["hop"] == UNKNOWN else None)
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        got: list[int] = []
        bob.on_message(lambda message: got.append(int(message.content.strip())))
        sent = []
        for cut in range(3):
            cable.cut_after = cable.sent + 50_001 + cut * 1_313
            sent += [ann.send(bob.address, f"{number:500}") for number in range(cut * 500, cut * 500 + 500)]
            wait_until(lambda cut=cut: cable.cuts >= cut + 1 and chat.reconnects >= cut + 1, 15, "it was cut, and is back")
        assert chat.flush(20)
        wait_until(lambda: len(got) >= 1_500, 20, "everything is handled")
        assert got == list(range(1_500))
        assert {message.state for message in sent} == {"confirmed"}
        assert cable.cuts >= 3 and chat.reconnects >= 3 and len(unknown) > 0


def test_late_confirms_of_a_connection_that_is_gone_confirm_nothing_new(broker: LocalBroker, unique: Unique) -> None:
    """When one connection is lost the link lets go of the other, and what the broker still says there must not be taken for the next
    pair's: delivery tags count from 1 again. 1 confirms of the first pair are held back on the way; 2 its consuming connection is
    cut; 3 new messages go out on the next pair, whose confirms are held too; 4 the old confirms arrive: nothing is confirmed by them.
    """
    settings = Settings(receipts=False, attempt_timeout=20)  # every publish of this chat is one of the test's
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=settings) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        earlier = [ann.send(bob.address, f"earlier {number}") for number in range(150)]
        assert chat.flush(10) and len([message.ack() for message in bob.receive(limit=150, timeout=5)]) == len(earlier)
        (publish,) = [number for number in cable.alive if cable.role(number, b" publish")]
        (consume,) = [number for number in cable.alive if cable.role(number, b" consume")]
        # 1: tags 151 to 250
        cable.hold(publish)
        confirmed: list[str] = []
        chat.on_event(lambda event: confirmed.append(event["message_id"]) if event["hop"] == "publish.confirmed" else None)
        first = [ann.send(bob.address, f"first {number}") for number in range(100)]
        assert len([message.ack() for message in bob.receive(limit=100, timeout=10)]) == 100  # the broker has them all
        assert confirmed == []
        # 2
        cable.cut(consume)
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 20, "the next pair is up")
        assert chat.flush(20)  # the first hundred were sent again, as tags 1 to 100, and are confirmed for good
        assert {message.state for message in first} == {"confirmed"}
        # 3: tags 101 to 400
        (fresh,) = [number for number in cable.alive if cable.role(number, b" publish") and number != publish]
        cable.hold(fresh)
        second = [ann.send(bob.address, f"second {number}") for number in range(300)]
        assert len([message.ack() for message in bob.receive(limit=300, timeout=10)]) == 300
        assert publish in cable.alive  # nobody has closed it: the broker's answer to our farewell is held, too
        # 4
        cable.release(publish)
        wait_until(lambda: publish not in cable.alive, 10, "the old connection says all that it has to say, and closes")
        assert {message.state for message in second} == {"pending"} and chat.unconfirmed == 300
        cable.release()
        assert chat.flush(10) and {message.state for message in second} == {"confirmed"}


def test_the_states_of_a_link_are_told_in_order_and_watchers_cannot_hurt_it(broker: LocalBroker, unique: Unique) -> None:
    seen: list[tuple[LinkState, str]] = []

    def clumsy(state: LinkState, reason: str) -> None:
        raise RuntimeError("a watcher's own mistake")

    with chatlib.connect(broker, name=unique("watched")) as chat:
        chat.on_state(clumsy)
        chat.on_event(lambda event: clumsy(LinkState.CLOSED, ""))
        stop = chat.on_state(lambda state, reason: seen.append((state, reason)))
        close_connections(broker, chat.name)
        wait_until(lambda: chat.state == "connected" and len(seen) > 1, 15, "it is back")
        assert chat.reconnects == 1
        assert [state for state, _ in seen] == [LinkState.RECOVERING, LinkState.CONNECTED]
        assert "closed by a test" in seen[0][1]
        stop()
        ann = chat.user(unique("ann"))
        ann.send(ann.address, "x").wait(30)
    assert len(seen) == 2
    assert chat.state is LinkState.CLOSED and chat.state == "closed"


def test_a_loss_is_one_line_in_the_log(broker: LocalBroker, unique: Unique, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), chatlib.connect(broker, name=unique("logged")) as chat:
        close_connections(broker, chat.name)
        wait_until(lambda: chat.reconnects == 1, 15, "it is back")
    lines = [record for record in caplog.records if record.name.startswith(("chatlib", "pika"))]
    warnings = [record for record in lines if record.levelno >= logging.WARNING]
    assert len(warnings) == 1 and "lost the broker" in warnings[0].getMessage() and not warnings[0].exc_info
    assert any("connected again" in record.getMessage() for record in lines)
    secret = broker.url.split(":")[2].split("@")[0]
    assert not [record for record in lines if secret in record.getMessage()]


def test_waiting_without_an_outcome_says_so_and_can_be_repeated(broker: LocalBroker, unique: Unique) -> None:
    with Cable(broker.url) as cable, chatlib.connect(cable.url) as chat:
        ann = chat.user(unique("ann"))
        cable.refusing = True
        cable.cut()
        wait_until(lambda: chat.state == "recovering", 10, "the link is down")
        sent = ann.send(ann.address, "x")
        with pytest.raises(OutcomeUnknown, match="wait again") as caught:
            sent.wait(0.3)
        assert not caught.value.definite and sent.state == "pending"
        cable.refusing = False
        assert sent.wait(15).state == "confirmed"


def test_requests_that_fall_into_a_loss_are_answered_when_the_link_is_back(broker: LocalBroker, unique: Unique) -> None:
    """join, sign-up and go_online wait for the broker, within their timeout; then they hold."""
    group = "#" + unique("team")
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=Settings(request_timeout=20)) as chat:
        ann, bob = chat.user(unique("ann")), chat.user(unique("bob"))
        bob.go_offline()
        cable.refusing = True
        cable.cut()
        wait_until(lambda: chat.state == "recovering", 10, "the link is down")
        bob.go_online()  # returns: it takes effect when the link is back
        joined = threading.Thread(target=bob.join, args=(group,))
        joined.start()
        cable.refusing = False
        joined.join(20)
        assert not joined.is_alive() and bob.groups == {group}
        ann.send(group, "welcome").wait(10)
        assert [message.content for message in bob.receive(limit=1, timeout=5)] == ["welcome"]


def test_a_request_without_an_answer_ends_with_its_timeout(broker: LocalBroker, unique: Unique) -> None:
    with Cable(broker.url) as cable, chatlib.connect(cable.url, settings=Settings(request_timeout=0.5)) as chat:
        bob = chat.user(unique("bob"))
        cable.refusing = True
        cable.cut()
        wait_until(lambda: chat.state == "recovering", 10, "the link is down")
        began = time.monotonic()
        with pytest.raises(chatlib.BrokerUnavailable, match=r"within 0\.5 s.*recovering.*start the broker"):
            bob.join("#" + unique("team"))
        assert time.monotonic() - began < 5


def test_offline_while_the_link_is_down_means_offline_when_it_is_back(broker: LocalBroker, unique: Unique) -> None:
    with Cable(broker.url) as cable, chatlib.connect(broker) as other, chatlib.connect(cable.url) as chat:
        bob = chat.user(unique("bob"))
        got: list[str] = []
        bob.on_message(lambda message: got.append(message.content))
        cable.refusing = True
        cable.cut()
        wait_until(lambda: chat.state == "recovering", 10, "the link is down")
        bob.go_offline()
        for number in range(20):
            other.user("ann").send(bob.address, str(number)).wait(30)
        cable.refusing = False
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 15, "the link is back")
        assert bob.waiting == 20 and got == []
        bob.go_online()
        wait_until(lambda: got == [str(number) for number in range(20)], 5, "now he gets them")


# the end


def test_closing_flushes_what_was_sent(broker: LocalBroker, unique: Unique) -> None:
    name = unique("bob")
    with chatlib.connect(broker) as chat:
        chat.user(name).go_offline()
        ann = chat.user(unique("ann"))
        sent = [ann.send("@" + name, str(number)) for number in range(2_000)]
    assert {message.state for message in sent} == {"confirmed"}


@pytest.mark.parametrize("pending", [0, 10])
def test_closing_wins_over_recovery(broker: LocalBroker, unique: Unique, pending: int) -> None:
    """At once with nothing to flush; else after its timeout, and who waits for an outcome is told."""
    with Cable(broker.url) as cable:
        chat = chatlib.connect(cable.url)
        ann = chat.user(unique("ann"))
        cable.refusing = True
        cable.cut()
        wait_until(lambda: chat.state == "recovering", 10, "the link is down")
        sent = [ann.send(ann.address, "x") for _ in range(pending)]
        began = time.monotonic()
        chat.close(timeout=1)
        took = time.monotonic() - began
        assert took < (4 if pending else 2)
        for message in sent:
            with pytest.raises(ChatClosed, match="data_dir"):
                message.wait(30)
        assert chat.state == "closed"


def test_twenty_five_chats_one_after_the_other_leave_no_thread_and_no_connection(broker: LocalBroker, unique: Unique) -> None:
    name = unique("soak")

    def once() -> None:
        with chatlib.connect(broker, name=name) as chat:
            ann = chat.user("soak")
            ann.send(ann.address, "x").wait(30)
            for message in ann.receive(limit=1, timeout=5):
                message.ack()

    once()
    before = set(threading.enumerate())
    for _ in range(25):
        once()
    wait_until(lambda: not set(threading.enumerate()) - before, 5, "no thread is left")
    with management(broker) as client:
        wait_until(lambda: not connections_of(client, name), 15, "no connection is left")


def test_a_list_of_urls_is_tried_in_turn(broker: LocalBroker, unique: Unique) -> None:
    nothing = "amqp://guest:guest@127.0.0.1:1/"
    with chatlib.connect([nothing, broker.url]) as chat:
        ann = chat.user(unique("ann"))
        ann.send(ann.address, "x").wait(30)
