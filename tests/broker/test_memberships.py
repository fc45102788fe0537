"""Memberships are bindings on the broker: whoever connects later knows them, by the management API with the broker's own login."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.errors import ManagementUnreachable, Unroutable
from chatlib.management import Management
from tests.support import wait_until
from tests.wire import close_connections


def test_groups_joined_in_an_earlier_connection_are_known_in_a_later_one(broker: LocalBroker, unique: Callable[[str], str]) -> None:
    name, group = unique("bob"), "#" + unique("team")
    with chatlib.connect(broker) as chat:
        chat.user(name).join(group)
    with chatlib.connect(broker) as chat:
        assert chat.user(name).groups == {group}


def test_a_management_url_without_credentials_takes_them_and_the_virtual_host_from_the_amqp_url(broker: LocalBroker) -> None:
    with Management(broker.management_url, login=broker.url) as management:
        assert management.vhost == "/"
        assert management.get("whoami")["name"] in broker.url


def test_joining_again_after_leaving_elsewhere_is_a_membership(broker: LocalBroker, unique: Callable[[str], str]) -> None:
    """1 joined here, left there; 2 joined here again: what is said is kept for him."""
    name, group = unique("bob"), "#" + unique("team")
    with chatlib.connect(broker) as here, chatlib.connect(broker) as there:
        bob, ann = here.user(name), here.user(unique("ann"))
        bob.join(group)
        # 1
        there.users([name], online=False)[0].leave(group)
        with pytest.raises(Unroutable):
            ann.send(group, "to nobody").wait(10)
        # 2
        bob.join(group)
        ann.send(group, "to bob").wait(10)
        assert [message.content for message in bob.receive(limit=1, timeout=10)] == ["to bob"]


def test_joining_and_leaving_at_the_same_moment_a_reconnect_changes_nothing(broker: LocalBroker, unique: Callable[[str], str]) -> None:
    """Whoever was last on the broker: recovery restores that, and not what was asked for last."""
    with chatlib.connect(broker, name=unique("chat")) as chat:
        bob = chat.user(unique("bob"))
        groups = ["#" + unique("team") for _ in range(30)]
        with ThreadPoolExecutor(2) as pool:
            for group in groups:
                both = [pool.submit(bob.join, group), pool.submit(bob.leave, group)]
                for done in both:
                    done.result(10)
        before = [bob.name in chat.members(group) for group in groups]
        close_connections(broker, chat.name)
        wait_until(lambda: chat.reconnects == 1 and chat.state == "connected", 15, "it is connected again")
        chat.user(unique("ann"))  # an answer to this means that everything was restored
        assert [bob.name in chat.members(group) for group in groups] == before


def test_groups_are_asked_for_again_when_the_first_answer_did_not_come(
    broker: LocalBroker, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The course kills the broker: a question at the wrong moment must not be the answer for good."""
    name, group = unique("bob"), "#" + unique("team")
    with chatlib.connect(broker) as chat:
        chat.user(name).join(group)
    with chatlib.connect(broker) as chat, monkeypatch.context() as down:
        bob = chat.user(name)
        down.setattr(Management, "memberships", Mock(side_effect=ManagementUnreachable("it is down")))
        assert bob.groups == set()
        down.undo()
        wait_until(lambda: bob.groups == {group}, 15, "the memberships of earlier")
