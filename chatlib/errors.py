"""Every error that chatlib raises, in one tree.

::

    ChatError                    base of all; `definite` says whether the failure is certain
      InvalidName                definite: the name of a user, a group or a chat that breaks a rule (also a ValueError)
      InvalidAddress             definite: not "@user" or "#group" (also a ValueError)
      InvalidContent             definite: content that cannot be sent (also a ValueError)
      InvalidUrl                 definite: not the address of a broker (also a ValueError)
      BrokerUnavailable          definite: nothing left this process
        AccessRefused            definite: wrong password, virtual host or permission
        UnknownHost              definite: the host name in the URL does not resolve
        NoAnswer                 INDEFINITE: asked, and no answer in time or the connection lost; asking again is safe
      BrokerStartFailed          definite: a broker of ours did not come up; carries its log lines
        BrokerNotInstalled       definite: no RabbitMQ, Erlang or Docker where one is needed
      BrokerNotOurs              definite: asked to start, stop or kill a broker that somebody else runs
      OutcomeUnknown             INDEFINITE: sent or queued, no confirm seen yet; resolves itself by resending
      Unroutable                 definite: no queue took the message
      PublishRejected            INDEFINITE: the broker refused; in a group other members may have it
        InboxFull                INDEFINITE: an inbox is at its limit; carries who
      QueueDown                  definite: the queue exists, its node or leader is not up (yet)
      TopologyMismatch           definite: a queue or exchange exists with other arguments
      DecodeError                definite: bytes that are no chat message; carries them
      OutboxError                definite: the outbox refused; the message was not accepted
        OutboxFull               definite: too many messages wait for the broker
        OutboxLocked             definite: another process has this data_dir open
        OutboxDamaged            definite: the file cannot be read as an outbox
      RateLimited                definite; carries retry_after in seconds
      ChatClosed                 definite: the chat or the user was closed
      ExtraMissing               definite: an optional package is not installed (also an ImportError)
      ManagementUnreachable      definite: the management API did not answer
      ManagementError            definite: the management API answered no; carries the status
      HistoryError               definite: records that the checker cannot judge (also a ValueError)
      FaultError                 definite: a fault could not be made here, or could not be healed

An error is *definite* when what was asked for did not happen and never will by itself.
Where that is in doubt, `definite` is False: do not send the same content again under a new id,
wait instead; chatlib resends under the same message id and receivers drop what they already handled.
The distinction is Maelstrom's (definite and indefinite errors).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

__all__ = [
    "AccessRefused",
    "BrokerNotInstalled",
    "BrokerNotOurs",
    "BrokerStartFailed",
    "BrokerUnavailable",
    "ChatClosed",
    "ChatError",
    "DecodeError",
    "ExtraMissing",
    "FaultError",
    "HistoryError",
    "InboxFull",
    "InvalidAddress",
    "InvalidContent",
    "InvalidName",
    "InvalidUrl",
    "ManagementError",
    "ManagementUnreachable",
    "NoAnswer",
    "OutboxDamaged",
    "OutboxError",
    "OutboxFull",
    "OutboxLocked",
    "OutcomeUnknown",
    "PublishRejected",
    "QueueDown",
    "RateLimited",
    "TopologyMismatch",
    "UnknownHost",
    "Unroutable",
]


class ChatError(Exception):
    """Base of every error of chatlib. `definite`: the failure is certain, nothing will come of it later."""

    definite: ClassVar[bool] = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors go to other processes as they are, also those that carry more than their text."""
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[ChatError], args: tuple[Any, ...], fields: dict[str, Any]) -> ChatError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class InvalidName(ChatError, ValueError):
    """The name of a user, a group or a chat that breaks a rule; the text says which rule."""


class InvalidAddress(ChatError, ValueError):
    """An address must be a sigil and a name: "@bob" for a user, "#team" for a group."""


class InvalidContent(ChatError, ValueError):
    """Content must be non-empty text, without NUL, within the size limit."""


class InvalidUrl(ChatError, ValueError):
    """A broker's address begins with amqp:// or amqps:// and names a host: amqp://user:password@host:5672/vhost is one.

    Also one that asks for less than a chat needs (`?channel_max=2`).
    """


class BrokerUnavailable(ChatError):
    """No broker answered; nothing left this process."""


class AccessRefused(BrokerUnavailable):
    """The broker answered and said no: wrong user, password, virtual host or missing permission."""


class UnknownHost(BrokerUnavailable):
    """The host name in the URL does not resolve to an address."""


class NoAnswer(BrokerUnavailable):
    """The broker was asked for something (a sign-up, a join) and did not answer in time, or the connection broke before the answer.

    It may be done; asking again is safe.
    """

    definite = False


class BrokerStartFailed(ChatError):
    """A broker did not come up. `log` holds its last lines (a list of str, oldest first)."""

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        self.log = list(log)
        super().__init__("\n".join([message, *(f"  | {line}" for line in self.log)]))


class BrokerNotInstalled(BrokerStartFailed):
    """The program that would run the broker (RabbitMQ, Erlang, Docker) is not on this machine."""


class BrokerNotOurs(ChatError):
    """The broker is run by somebody else: chatlib can use it, and cannot start, stop, kill or freeze it."""


class OutcomeUnknown(ChatError):
    """No confirm was seen in time. The message stays in the outbox and is resent under the same id."""

    definite = False


class Unroutable(ChatError):
    """No queue took the message: there is no such user, or the group has no members."""


class PublishRejected(ChatError):
    """The broker refused the message (a nack). In a group, other members may have received it."""

    definite = False


class InboxFull(PublishRejected):
    """An inbox is at its limit. `who`: the user names known to be full, possibly empty when nobody could tell."""

    def __init__(self, message: str, who: Sequence[str] = ()) -> None:
        self.who = tuple(who)
        super().__init__(message)


class QueueDown(ChatError):
    """The queue or stream exists, but its node or leader is not up: for about a second after a restart, or for good."""


class TopologyMismatch(ChatError):
    """A queue or exchange of this name exists with other arguments (AMQP 406)."""


class DecodeError(ChatError):
    """Bytes that are not a message of this protocol. `body` holds them unchanged."""

    def __init__(self, message: str, body: bytes = b"") -> None:
        self.body = body
        super().__init__(message)


class OutboxError(ChatError):
    """The outbox did not accept the message."""


class OutboxFull(OutboxError):
    """Too many messages wait for the broker, or the disk is full; the message was not accepted."""


class OutboxLocked(OutboxError):
    """Another process (or another Chat) has this data_dir open."""


class OutboxDamaged(OutboxError):
    """The outbox file is not a readable outbox; it was left as it is."""


class RateLimited(ChatError):
    """Too many requests. `retry_after`: seconds until the next one would be let through."""

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class ChatClosed(ChatError):
    """The chat was closed; make a new one with `chatlib.connect`."""


class ExtraMissing(ChatError, ImportError):
    """A package that only a part of chatlib needs is not installed; the text names the extra that brings it."""


class ManagementUnreachable(ChatError):
    """The management API did not answer: is the plugin on, is the port right?"""


class ManagementError(ChatError):
    """The management API answered no. `status` is the HTTP status code."""

    def __init__(self, message: str, status: int) -> None:
        self.status = status
        super().__init__(message)


class HistoryError(ChatError, ValueError):
    """A history that cannot be judged: a record lacks what every record of its kind has, or some are missing."""


class FaultError(ChatError):
    """A fault of `chatlib.faults` could not be made here, or could not be healed; the text says what to do."""
