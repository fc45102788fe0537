"""What a lesson says about pictures: keep this moment, wait until it can be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.lab.waiting import NotInTime
from chatlib.lab.widgets import queue_chart
from chatlib.lab.widgets.queue_chart import QueueChart
from chatlib.lab.widgets.topology_map import TopologyMap
from chatlib.monitor import Monitor
from tests.support import wait_until


def test_what_was_kept_is_saved_whatever_came_later(
    broker: LocalBroker, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """1 three messages wait, the chart shows it long enough, the map is kept; 2 a level that does not come is an error; 3 they are
    fetched, and the map says so; 4 closed, what is saved is the picture of 1.
    """
    with chatlib.connect(broker) as chat, Monitor(broker) as monitor:
        alice, bob = chat.user(unique("alice")), chat.user(unique("bob"))
        inbox = f"inbox.{bob.name}"
        way, chart = TopologyMap(monitor, chat, rows=50), QueueChart(monitor, [inbox])
        try:
            # 1
            bob.go_offline()
            for number in range(3):
                alice.send(f"@{bob.name}", str(number)).wait()
            chart.shows(inbox, 3, seconds=1)
            times, values = chart.tracks.queues[inbox].ready.since()
            assert values[-2:] == [3, 3] and times[-1] - times[-2] >= 1
            way.keep()
            assert "3 ready" in way.svg()
            # 2
            monkeypatch.setattr(queue_chart, "PATIENCE", 0.1)
            with pytest.raises(NotInTime, match="4 messages wait"):
                chart.shows(inbox, 4, seconds=0.1)
            # 3
            bob.on_message(lambda message: None)
            bob.go_online()
            wait_until(lambda: "3 ready" not in way.svg(), 20, "the map shows that they are fetched")
        finally:
            way.close()
            chart.close()
        # 4
        assert "3 ready" in way._bundle(live=False)["text/html"]
