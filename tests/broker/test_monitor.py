"""Monitor and Sampler on a real broker: what exists is exact, figures come late, and a broker that dies is a row and no exception."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

import chatlib
from chatlib import Chat, ManagementError, ManagementUnreachable, faults
from chatlib.brokers import LocalBroker
from chatlib.monitor import Monitor
from chatlib.sampler import COLUMNS, Sampler
from tests.support import process_runs, unique_name, wait_until

Unique = Callable[[str], str]


@pytest.fixture(scope="module")
def chat(broker: LocalBroker) -> Iterator[Chat]:
    with chatlib.connect(broker, name=unique_name("monitored")) as chat:
        yield chat


@pytest.fixture(scope="module")
def monitor(broker: LocalBroker) -> Iterator[Monitor]:
    with Monitor(broker) as monitor:
        yield monitor


def test_what_exists_is_in_the_tables(chat: Chat, monitor: Monitor, unique: Unique) -> None:
    bob, group = chat.user(unique("bob")), unique("team")
    bob.join(f"#{group}")
    inbox = f"inbox.{bob.name}"
    queues = monitor.queues().set_index("queue")
    assert queues.loc[inbox, "type"] == "classic" and bool(queues.loc[inbox, "durable"]) is True
    exchanges = monitor.exchanges().set_index("exchange")
    assert exchanges.loc["chat.groups", "type"] == "direct" and "" in exchanges.index
    bindings = monitor.bindings()
    assert bindings[bindings["destination"] == inbox][["source", "key"]].values.tolist() == [
        ["", inbox],
        ["chat.groups", group],
        ["chat.users", bob.name],
    ]


def test_consumers_are_listed_with_their_prefetch(chat: Chat, monitor: Monitor, unique: Unique) -> None:
    bob = chat.user(unique("bob"))

    def of_bob() -> list[list[object]]:
        consumers = monitor.consumers()
        return list(consumers[consumers["queue"] == f"inbox.{bob.name}"][["prefetch", "ack_required", "exclusive"]].to_numpy().tolist())

    assert wait_until(of_bob, 10, "the consumer is listed") == [[100.0, True, False]]


def test_connections_channels_and_consumers_belong_together(chat: Chat, monitor: Monitor, unique: Unique) -> None:
    """A client is found by the name that it gave itself; the broker lists a connection up to a second late."""
    user = chat.user(unique("bob"))

    def clients() -> dict[str, list[str]]:
        """Which of the chat's connections has the consumer of the inbox, and which asks for confirms."""
        connections, channels, consumers = monitor.connections(), monitor.channels(), monitor.consumers()
        name = dict(zip(connections["connection"], connections["client"], strict=True))
        mine = consumers[consumers["queue"] == f"inbox.{user.name}"].merge(channels, on="channel", suffixes=("", "_of_channel"))
        confirms = channels[channels["confirms"].fillna(False)]
        return {
            "consumes": [name.get(key, "") for key in mine["connection_of_channel"]],
            "confirms": [name[key] for key in confirms["connection"] if name.get(key, "").startswith(chat.name)],
        }

    expected = {"consumes": [f"{chat.name} consume"], "confirms": [f"{chat.name} publish"]}
    wait_until(lambda: clients() == expected, 15, "consumer and channel lead to the connection that the chat named")


def test_figures_come_late_and_then_with_their_age(chat: Chat, monitor: Monitor, unique: Unique) -> None:
    bob = chat.user(unique("bob"))
    bob.go_offline()
    for number in range(3):
        bob.send(bob.address, str(number)).wait()

    def settled() -> bool:
        row = monitor.queues().set_index("queue").loc[f"inbox.{bob.name}"]
        return row["ready"] == 3 and row["consumers"] == 0 and 0 <= row["age"] < 60

    wait_until(settled, 15, "the broker's sample has all three, and its age")
    nodes = monitor.nodes()
    assert len(nodes) == 1 and bool(nodes["running"].iloc[0]) is True and nodes["uptime"].iloc[0] > 0
    assert nodes["memory"].iloc[0] > 1e6 and bool(nodes["memory_alarm"].iloc[0]) is False
    wait_until(lambda: monitor.rates().set_index("what").loc["publish", "total"] >= 3, 15, "traffic is counted")
    assert list(monitor.alarms().columns) == ["node", "alarm"] and len(monitor.alarms()) == 0


def test_who_cannot_ask_is_told_why(broker: LocalBroker) -> None:
    with Monitor("http://guest:guest@127.0.0.1:1") as nobody, pytest.raises(ManagementUnreachable, match="no answer"):
        nobody.queues()
    address = broker.management_url.replace("http://", "http://nobody:wrong@")
    with Monitor(address) as stranger, pytest.raises(ManagementError, match="wrong user or password") as caught:
        stranger.nodes()
    assert caught.value.status == 401 and "wrong@" not in repr(stranger)


@pytest.mark.parametrize("arguments", [{"hz": 0}, {"hz": 11}, {"hz": float("nan")}, {"keep": 0}])
def test_a_sampler_refuses_what_makes_no_sense(broker: LocalBroker, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(arguments))):
        Sampler(broker, **arguments)  # type: ignore[arg-type]


def test_a_sampler_of_a_broker_that_is_closed_says_that_it_does_not_answer() -> None:
    broker = LocalBroker()
    sampler = Sampler(broker, queues=["inbox.bob"])
    broker.close()
    with sampler:
        wait_until(lambda: len(sampler.rows()) >= 2, 10, "samples")
        assert sampler.is_running
    assert [each["queue"] for each in sampler.rows() if each["up"]] == [] and sampler.rows()[0]["queue"] == "inbox.bob"


def samplers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sampler"]


def test_a_sampler_sees_a_queue_rise_and_fall_and_keeps_no_more_than_it_may(chat: Chat, monitor: Monitor, unique: Unique) -> None:
    """1 it starts once, however often it is asked; 2 depth and rates of the named queue, and of no other; 3 the table is bounded;
    4 stopped: the table stays, nothing is added, the thread is gone; 5 it can be started again.
    """
    bob = chat.user(unique("bob"))
    bob.go_offline()
    inbox, before = f"inbox.{bob.name}", len(samplers())
    sampler = monitor.sampler(queues=[inbox], hz=10, keep=30)
    with sampler:
        # 1
        assert sampler.start() is sampler and len(samplers()) == before + 1 and sampler.is_running
        # 2
        for number in range(200):
            bob.send(bob.address, str(number))
        wait_until(lambda: sampler.latest("ready") == {inbox: 200.0}, 15, "it sees 200 waiting")
        wait_until(
            lambda: bob.send(bob.address, "one more") and (sampler.frame()["publish_rate"] > 0).any(), 15, "it sees them come", poll=0.2
        )
        bob.on_message(lambda message: None)
        bob.go_online()
        wait_until(lambda: sampler.latest("ready") == {inbox: 0.0}, 15, "it sees them go")
        wait_until(lambda: (sampler.frame(inbox)["ack_rate"] > 0).any(), 15, "and how fast")
        frame = sampler.frame()
        assert list(frame.columns) == list(COLUMNS) and set(frame["queue"]) == {inbox} and frame["up"].all()
        assert frame["at"].is_monotonic_increasing and (frame["age"].dropna() >= 0).all() and len(sampler.frame("another")) == 0
        # 3
        wait_until(lambda: len(sampler.frame()) == 30, 20, "the table is full")
        first = sampler.frame()["at"].iloc[0]
        wait_until(lambda: sampler.frame()["at"].iloc[0] > first, 10, "the oldest rows go")
        assert len(sampler.frame()) == 30
    # 4
    last = sampler.frame()["at"].iloc[-1]
    sampler.stop()
    assert not sampler.is_running and len(samplers()) == before
    assert len(sampler.frame()) == 30 and sampler.frame()["at"].iloc[-1] == last
    # 5
    sampler.start()
    wait_until(lambda: sampler.frame()["at"].iloc[-1] > last, 10, "it goes on")
    sampler.stop()


def test_a_sampler_outlives_a_broker_that_hangs_and_dies(new_broker: Callable[[], LocalBroker]) -> None:
    """1 frozen: rows without numbers, `up` False; 2 thawed: numbers again; 3 an alarm is listed while it lasts; 4 killed: again rows
    without numbers, and the thread lives; 5 the faults are beside the samples.
    """
    with new_broker() as broker, Monitor(broker) as monitor, faults.recording() as recorded:
        sampler = monitor.sampler(hz=10, faults=recorded)
        with chatlib.connect(broker) as chat, sampler:
            chat.user("bob").send("@bob", "hello").wait()

            def up(wanted: bool, since: float) -> bool:
                after = sampler.frame("inbox.bob").query(f"at > {since!r}")
                return len(after) > 0 and after["up"].iloc[-1] == wanted

            wait_until(lambda: up(True, 0), 15, "the inbox is sampled")
            # 1
            with faults.freeze(broker) as freeze:
                wait_until(lambda: up(False, freeze.began), 15, "it answers no more")
            # 2
            wait_until(lambda: up(True, freeze.ended or 0), 15, "it answers again")
            # 3
            with faults.memory_alarm(broker):
                assert monitor.alarms()["alarm"].tolist() == ["memory"]
            assert len(monitor.alarms()) == 0
            # 4
            pid = broker.pid
            kill = sampler.mark(faults.kill(broker))
            assert pid and not process_runs(pid)
            wait_until(lambda: up(False, kill.began), 15, "it is gone")
            rows = len(sampler.frame())
            wait_until(lambda: len(sampler.frame()) > rows + 3, 15, "samples go on being taken")
            with pytest.raises(ManagementUnreachable):
                monitor.queues()
        away = sampler.frame().query("not up")
        assert away[["ready", "unacked", "publish_rate", "age"]].isna().all().all() and len(away) > 4
        # 5
        marked = sampler.fault_frame()
        assert marked["name"].tolist() == ["freeze", "memory_alarm", "kill"]
        assert marked["ended"].isna().tolist() == [False, False, True]


def test_a_broker_without_metrics_still_tells_what_exists_and_how_much_waits() -> None:
    """RabbitMQ 4 calls the metrics of its management API deprecated: here they are switched off. Depths are exact all the same."""
    with LocalBroker(config=["management_agent.disable_metrics_collector = true"]) as broker, Monitor(broker) as monitor:
        with chatlib.connect(broker) as chat, monitor.sampler(hz=10) as sampler:
            bob = chat.user("bob")
            bob.go_offline()
            for number in range(3):
                bob.send("@bob", str(number)).wait()
            wait_until(lambda: sampler.latest("ready").get("inbox.bob") == 3, 10, "the sampler sees three")
            queues = monitor.queues().set_index("queue")
            assert (queues.loc["inbox.bob", "ready"], queues.loc["inbox.bob", "unacked"]) == (3, 0)
            assert queues[["publish_rate", "memory", "age"]].isna().all(axis=None)
            assert len(monitor.connections()) == 2 and len(monitor.exchanges()) > 5 and len(monitor.bindings()) > 2
            assert [len(each) for each in (monitor.channels(), monitor.consumers(), monitor.rates(), monitor.alarms())] == [0, 0, 0, 0]
            assert monitor.nodes()["running"].tolist() == [True]
            frame = sampler.frame("inbox.bob")
            assert frame["up"].all() and frame[["publish_rate", "age"]].isna().all(axis=None)
        broker.kill()
