"""What tests on one broker share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from chatlib.brokers import LocalBroker
from tests.wire import management


@pytest.fixture
def vhost(broker: LocalBroker, unique: Callable[[str], str]) -> Iterator[str]:
    """The URL of a virtual host without anything in it: in one, all users' queues are of one type."""
    account = urlsplit(broker.url)
    name = unique("vhost")
    with management(broker) as api:
        api.put(f"vhosts/{name}").raise_for_status()
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        api.put(f"permissions/{name}/{account.username}", json=everything).raise_for_status()
        yield f"{broker.url.removesuffix('%2F').removesuffix('/')}/{name}"
        api.delete(f"vhosts/{name}").raise_for_status()
