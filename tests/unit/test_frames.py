"""The frames that we pack ourselves are, to the byte, those that pika packs."""

from __future__ import annotations

from typing import Any

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.attempts import MAX_FAILURES, MAX_REASON, headers_of_death
from chatlib.envelope import Outgoing
from chatlib.frames import odd_publish_frames, publish_frames
from chatlib.urls import LEAST

shorts = st.text(st.characters(codec="utf-8"), max_size=60)


def outgoing(**fields: Any) -> Outgoing:
    plain = {"exchange": "exchange", "key": "key", "body": b"body", "message_id": "id", "kind": "TYPE", "timestamp": 5}
    return Outgoing(**{**plain, "on_outcome": lambda *_: None, **fields})


def by_pika(channel: int, what: Outgoing) -> bytes:
    properties = pika.BasicProperties(
        content_type=what.content_type, delivery_mode=2, message_id=what.message_id, timestamp=what.timestamp, type=what.kind
    )
    frames = [
        pika.frame.Method(channel, pika.spec.Basic.Publish(exchange=what.exchange, routing_key=what.key, mandatory=True)),
        pika.frame.Header(channel, len(what.body), properties),
    ]
    if what.body:
        frames.append(pika.frame.Body(channel, what.body))
    return b"".join(frame.marshal() for frame in frames)


messages = st.fixed_dictionaries(
    {
        "exchange": shorts,
        "key": shorts,
        "body": st.binary(max_size=5000),
        "content_type": shorts,
        "message_id": shorts,
        "timestamp": st.integers(0, 2**63 - 1),
        "kind": st.sampled_from(["SEND_MESSAGE", "RECEIVE_MESSAGE"]),
    }
)


@given(st.integers(1, 65_535), messages)
def test_as_pika(channel: int, fields: dict[str, Any]) -> None:
    assert publish_frames(channel, outgoing(**fields)) == by_pika(channel, outgoing(**fields))


def of_pika(what: Outgoing) -> pika.BasicProperties:
    """Its properties, with headers, as pika has them."""
    return pika.BasicProperties(
        content_type=what.content_type,
        delivery_mode=2,
        headers=what.headers,
        message_id=what.message_id,
        timestamp=what.timestamp,
        type=what.kind,
    )


headers = st.none() | st.dictionaries(
    shorts, st.integers(-(2**63), 2**63 - 1) | shorts | st.booleans() | st.lists(shorts, max_size=5), max_size=5
)
LIMIT = 4096 - 8  # of the smallest frame that AMQP allows


@given(st.integers(1, 65_535), messages, headers, st.binary(max_size=3))
def test_with_headers_and_in_several_frames_as_pika(
    channel: int, fields: dict[str, Any], headers: dict[str, Any] | None, times: bytes
) -> None:
    what = outgoing(**{**fields, "headers": headers, "body": fields["body"] * (2 ** len(times))})
    properties = of_pika(what)
    written: list[bytes] = []
    connection = pika.connection.Connection.__new__(pika.SelectConnection)
    connection._body_max_length, connection._output_marshaled_frames = LIMIT, written.extend
    method = pika.spec.Basic.Publish(exchange=what.exchange, routing_key=what.key, mandatory=True)
    connection._send_message(channel, method, (properties, what.body))
    assert b"".join(odd_publish_frames(channel, what, b"".join(properties.encode()), LIMIT)) == b"".join(written)


def test_properties_that_fill_a_frame_pass_and_a_byte_more_does_not() -> None:
    """12 bytes of the payload are class, weight and size of the body; the flags are the first of the properties."""
    frames = odd_publish_frames(1, outgoing(body=b""), bytes(LIMIT - 12), LIMIT)
    assert len(frames) == 1 and frames[0].endswith(bytes(LIMIT - 12) + b"\xce")
    with pytest.raises(ValueError, match="4,089 bytes, and a frame of this connection holds 4,088"):
        odd_publish_frames(1, outgoing(body=b""), bytes(LIMIT - 11), LIMIT)


def test_the_longest_story_of_a_message_fits_into_the_least_frame_that_a_url_may_ask_for() -> None:
    reasons = ["🦊" * MAX_REASON] * (MAX_FAILURES + 1)
    headers = headers_of_death(queue="q" * 255, attempt=2**30, failures=reasons, first_failure=2e9, now=2e9)
    what = outgoing(message_id="i" * 255, kind="t" * 255, content_type="c" * 255, headers=headers)
    properties = of_pika(what)
    assert odd_publish_frames(1, what, b"".join(properties.encode()), LEAST["frame_max"] - 8)


def test_longest_short_strings() -> None:
    longest = "ö" * 127 + "x"
    what = outgoing(exchange=longest, key=longest, message_id=longest, kind=longest, content_type=longest)
    assert publish_frames(1, what) == by_pika(1, what)


@pytest.mark.parametrize("name", ["exchange", "key", "message_id", "kind", "content_type"])
def test_what_is_too_long_for_a_short_string_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="255 bytes"):
        publish_frames(1, outgoing(**{name: "x" * 256}))


@pytest.mark.parametrize(("name", "value"), [("key", "\ud800"), ("message_id", "\udfff"), ("timestamp", -1), ("timestamp", 2**64)])
def test_what_is_no_text_or_no_time_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ValueError):
        publish_frames(1, outgoing(**{name: value}))
