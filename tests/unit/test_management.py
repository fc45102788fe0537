"""Where the management API is, by what was given; that it is asked there is seen by the tests with a broker."""

from __future__ import annotations

import pytest

from chatlib.management import Management


@pytest.mark.parametrize(
    ("given", "root"),
    [
        ("amqp://ann:pw@host:5672/vhost", "http://host:15672"),
        ("amqps://ann:pw@host/", "https://host:15671"),
        ("http://host:15680/", "http://host:15680"),
        ("http://host", "http://host:15672"),
        ("https://host", "https://host:443"),
        ("https://host:8443/rabbit/", "https://host:8443/rabbit"),
        ("http://[::1]:15672", "http://[::1]:15672"),
    ],
)
def test_the_scheme_and_the_path_are_kept_and_the_port_follows_from_them(given: str, root: str) -> None:
    """A password must not go in clear to where TLS was asked for."""
    with Management(given, login="amqp://ann:pw@host/") as api:
        assert api.url == root
        assert str(api._http.base_url) == f"{root.removesuffix(':443')}/api/"
