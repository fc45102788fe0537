"""Memberships are bindings on the broker: whoever connects later knows them, by the management API with the broker's own login."""

from __future__ import annotations

from collections.abc import Callable

import chatlib
from chatlib.brokers import LocalBroker
from chatlib.management import Management


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
