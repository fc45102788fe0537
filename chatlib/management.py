"""A small client of RabbitMQ's HTTP API: what exists on the broker and what it is doing.

Figures of the API are samples (`LocalBroker` takes them every second, a stock broker every five) and may come late or not at all;
what exists (queues, exchanges, bindings) is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import httpx

from chatlib.errors import ChatError, ManagementError, ManagementUnreachable
from chatlib.names import unescape, user_of_queue
from chatlib.topology import GROUPS
from chatlib.urls import MANAGEMENT, masked
from chatlib.waiting import seconds

__all__ = ["Management"]

MEANINGS: Final = {
    401: "wrong user or password",
    403: "the user lacks a management tag (administrator, monitoring, management)",
    404: "no such object, or the management plugin does not serve it",
}


class Management:
    """Asks the management API at `url`, for example "http://user:password@127.0.0.1:15672/".

    An AMQP URL stands for port 15672 (15671 with TLS) on the same host with the same user and virtual host; http without a port for
    15672, too. timeout: seconds for each request.
    login: an AMQP URL whose user, password and virtual host count where `url` has none: a broker's `management_url` has none.
    moved: where it is now, asked when there was no answer: a cluster's API is at the first node that runs.
    Every method raises ManagementUnreachable (no answer) or ManagementError (an answer that says no). A context manager.
    """

    def __init__(
        self,
        url: str,
        *,
        login: str | None = None,
        vhost: str | None = None,
        timeout: float = 5.0,
        moved: Callable[[], str] | None = None,
    ) -> None:
        parts = urlsplit(url)
        is_amqp = parts.scheme in MANAGEMENT
        account = parts if parts.username or login is None else urlsplit(login)
        host = parts.hostname or "localhost"
        scheme, usual = ("https", 443) if parts.scheme == "https" else MANAGEMENT.get(parts.scheme, MANAGEMENT["amqp"])
        port = usual if is_amqp or parts.port is None else parts.port
        path = "" if is_amqp else parts.path.rstrip("/")  # of a proxy, or RabbitMQ's management.path_prefix
        self.vhost = vhost or (unquote(account.path[1:]) or "/" if account.scheme.startswith("amqp") else "/")
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{path}"
        self._shown = masked(url)
        self._moved = moved
        self._http = httpx.Client(
            base_url=f"{self.url}/api/",
            auth=(unquote(account.username or "guest"), unquote(account.password or "guest")),
            timeout=seconds(timeout, "the timeout"),
            trust_env=False,  # a proxy of the environment is not between us and a broker on loopback
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON that GET /api/<path> answers."""
        return self._request("GET", path, params=parameters)

    def health(self, check: str) -> Any:
        """What the health check at /api/health/checks/<check> answers, whether it passes or fails (503)."""
        return self._request("GET", f"health/checks/{check}", also=503)

    def delete(self, path: str, *, reason: str = "") -> None:
        """DELETE /api/<path>. reason: what a connection that is closed by it is told."""
        self._request("DELETE", path, headers={"X-Reason": reason} if reason else {})

    def _request(self, method: str, path: str, *, also: int = 0, **options: Any) -> Any:
        """also: a status that is an answer here, though it looks like an error."""
        try:
            try:
                response = self._http.request(method, path, **options)
            except httpx.TransportError:
                if not self._follow():
                    raise
                response = self._http.request(method, path, **options)
        except httpx.HTTPError as exc:
            raise ManagementUnreachable(
                f"no answer from the management API at {self.url} ({type(exc).__name__}): "
                "is the broker up, with the plugin rabbitmq_management?"
            ) from exc
        if response.is_error and response.status_code != also:
            meaning = MEANINGS.get(response.status_code, response.text[:200])
            raise ManagementError(f"{method} {path} at {self.url}: {response.status_code}, {meaning}", response.status_code)
        try:
            return response.json() if response.content else None
        except ValueError as exc:  # cut off in the middle: it went down while it answered
            raise ManagementUnreachable(f"the answer of the management API at {self.url} is no JSON: is another service there?") from exc

    def _follow(self) -> bool:
        """Go where the API is now; whether that is another place than before."""
        try:
            url = self._moved().rstrip("/") if self._moved else self.url
        except ChatError:  # the broker's object is closed
            return False
        if url in ("", self.url):
            return False
        self.url, self._shown, self._http.base_url = url, masked(url), httpx.URL(f"{url}/api/")
        return True

    def in_vhost(self, kind: str, *rest: str) -> str:
        """Path of `kind` in our virtual host, every part quoted: `in_vhost("queues", "inbox.bob")` is "queues/%2F/inbox.bob"."""
        return "/".join([kind, *(quote(part, safe="") for part in (self.vhost, *rest))])

    def memberships(self) -> dict[str, frozenset[str]]:
        """Who is a member of what: user -> addresses of groups, by the bindings that exist now."""
        groups: dict[str, set[str]] = {}
        for binding in self.get(self.in_vhost("exchanges", GROUPS.name) + "/bindings/source"):
            user = user_of_queue(binding["destination"])
            if user is not None and binding["destination"].startswith("inbox."):
                groups.setdefault(user, set()).add("#" + unescape(binding["routing_key"]))
        return {user: frozenset(addresses) for user, addresses in groups.items()}

    def members(self, group: str) -> frozenset[str]:
        """The names of the members of `group` (bare name)."""
        address = f"#{group}"
        return frozenset(user for user, addresses in self.memberships().items() if address in addresses)

    def close(self) -> None:
        """Close the HTTP connections."""
        self._http.close()

    def __enter__(self) -> Management:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Management {self._shown}>"
