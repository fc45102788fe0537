"""The codec: what is encoded comes back equal; whatever bytes come, only DecodeError is raised, and it keeps them."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chatlib.errors import DecodeError, InvalidContent
from chatlib.messages import (
    RECEIVE_MESSAGE,
    SEND_MESSAGE,
    VERSION,
    ReceiveMessage,
    SendMessage,
    check_content,
    compose,
    decode,
    new_message_id,
)
from chatlib.names import Address, check_user_name, parse_address
from tests.unit.test_names import names

contents = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1, max_size=300)
moments = st.floats(0, 4_000_000_000)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
GOOD: dict[str, Any] = {
    "type": SEND_MESSAGE,
    "version": VERSION,
    "message_id": "01J00000000000000000000000",
    "sender_id": "ann",
    "group_id": None,
    "recipient_id": "bob",
    "content": "hi",
    "timestamp": "2026-01-02T03:04:05.678Z",
}
RECEIPT: dict[str, Any] = {
    "type": RECEIVE_MESSAGE,
    "version": VERSION,
    "recipient_id": "bob",
    "message_id": "01J00000000000000000000000",
    "read_status": "read",
}


def refused(body: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(body)
    assert caught.value.body == body
    assert str(caught.value)
    str(caught.value).encode()  # it can be logged and put into a header
    return caught.value


@given(names, names, st.sampled_from("@#"), contents, moments)
def test_what_is_sent_comes_back_equal(sender: str, to: str, sigil: str, content: str, seconds: float) -> None:
    message = compose(new_message_id(), check_user_name(sender), parse_address(sigil + to), content, seconds)
    assert decode(message.encode()) == message
    assert message.to == str(parse_address(sigil + to))


@given(names, st.sampled_from(["delivered", "read"]))
def test_receipts_come_back_equal(recipient: str, status: Any) -> None:
    receipt = ReceiveMessage(check_user_name(recipient), new_message_id(), status)
    assert decode(receipt.encode()) == receipt
    assert len(receipt.receipt_id.encode()) <= 255, "longer than an AMQP short string: it could never be published"


def test_the_wire_format_is_what_the_design_says() -> None:
    message = compose("01J00000000000000000000000", "ann", Address("#", "team"), "é🦊", 1_700_000_000.1239)
    assert json.loads(message.encode()) == {
        "type": "SEND_MESSAGE", "version": 1, "message_id": "01J00000000000000000000000", "sender_id": "ann", "group_id": "team",
        "recipient_id": None, "content": "é🦊", "timestamp": "2023-11-14T22:13:20.123Z",
    }  # fmt: skip
    assert "é🦊".encode() in message.encode()  # UTF-8, not escapes
    assert json.loads(ReceiveMessage("bob", "01J00000000000000000000000", "delivered").encode()) == {
        "type": "RECEIVE_MESSAGE", "version": 1, "recipient_id": "bob", "message_id": "01J00000000000000000000000",
        "read_status": "delivered",
    }  # fmt: skip


def test_unknown_keys_are_ignored_so_that_a_later_version_may_add_some() -> None:
    assert isinstance(decode(json.dumps(GOOD | {"mood": "sunny"}).encode()), SendMessage)
    assert isinstance(decode(json.dumps(RECEIPT | {"mood": "sunny"}).encode()), ReceiveMessage)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xff\xfe\x00")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b"1" * 5_000)
@example(b"NaN")
@example(b'"type"')
def test_arbitrary_bytes_raise_nothing_but_a_decode_error(body: bytes) -> None:
    refused(body)


@given(st.sampled_from([GOOD, RECEIPT]), st.data())
def test_a_good_message_with_any_value_in_any_field_is_read_or_refused(good: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(good)))
    body = json.dumps(good | {key: data.draw(json_values)}).encode()
    try:
        message = decode(body)
    except DecodeError:
        refused(body)
    else:
        assert decode(message.encode()) == message


@pytest.mark.parametrize("key", sorted(set(GOOD) - {"group_id"}))
def test_a_missing_key_is_refused(key: str) -> None:
    refused(json.dumps({name: value for name, value in GOOD.items() if name != key}).encode())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"version": 2}, "version 2"),
        ({"version": "1"}, "version '1'"),
        ({"type": "SHOUT"}, "SHOUT"),
        ({"type": None}, "type must be"),
        ({"group_id": "team"}, "exactly one"),
        ({"recipient_id": None}, "exactly one"),
        ({"recipient_id": "b b"}, "spaces"),
        ({"sender_id": ""}, "empty"),
        ({"sender_id": 7}, "int"),
        ({"content": ""}, "content"),
        ({"content": ["a"]}, "content"),
        ({"content": "\ud800"}, "surrogates"),
        ({"message_id": ""}, "message_id"),
        ({"message_id": 7}, "message_id"),
        ({"message_id": "x" * 300}, "message_id"),
        ({"message_id": "\ud800"}, "message_id"),
        ({"message_id": "a\nb"}, "message_id"),
        ({"timestamp": "yesterday"}, "isoformat"),
        ({"timestamp": 12}, "timestamp|str"),
        ({"timestamp": "0001-01-01T00:00:00+23:59"}, "Overflow|timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-23:59"}, "Overflow|timestamp"),
        ({"timestamp": "0001-01-01T00:00:00"}, "timestamp|range"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], text: str) -> None:
    """Two of them are real traps: an id longer than 255 bytes cannot be an AMQP property again, half a surrogate pair is no UTF-8."""
    error = refused(json.dumps(GOOD | change).encode())
    assert re.search(text, str(error)), str(error)


def test_a_receipt_with_another_status_is_refused() -> None:
    assert "loved" in str(refused(json.dumps(RECEIPT | {"read_status": "loved"}).encode()))


# content


@pytest.mark.parametrize("content", ["x", " ", "\n", "🦊" * 10, "a" * 64, "\x01\x1b", "\u202e", "\ufeff"])
def test_content_of_any_kind_passes(content: str) -> None:
    assert check_content(content, 64) is content


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("", "empty"),
        (b"bytes", "base64"),
        (None, "NoneType"),
        (7, "int"),
        ("a\x00b", "NUL"),
        ("\ud83e", "surrogate"),
        ("a" * 65, "at most 64 bytes"),
        ("🦊" * 17, "this has 68"),
    ],
)
def test_refused_content_says_the_rule(content: Any, rule: str) -> None:
    with pytest.raises(InvalidContent, match=rule) as caught:
        check_content(content, 64)
    assert isinstance(caught.value, ValueError)


# ids


def test_ids_are_ulids_of_their_moment() -> None:
    """Source: the ULID specification; 2**48 milliseconds end in the year 10889."""
    identifier = new_message_id(4_102_444_800.123)
    assert len(identifier) == 26
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    value = 0
    for character in identifier[:10]:
        value = value * 32 + alphabet.index(character)
    assert value == 4_102_444_800_123


def test_ids_only_ever_rise_also_when_the_clock_goes_back() -> None:
    moments = [5_000_000_000.0, 5_000_000_000.0, 4_999_999_000.0, 5_000_000_000.001, 1.0, 5_000_000_001.0]
    ids = [new_message_id(moment) for moment in moments]
    assert ids == sorted(set(ids))


def test_ids_of_many_threads_are_all_different_and_rise_in_each() -> None:
    made: list[list[str]] = [[] for _ in range(8)]

    def make(mine: list[str]) -> None:
        mine.extend(new_message_id() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({identifier for mine in made for identifier in mine}) == 16_000
    assert all(mine == sorted(mine) for mine in made)


def test_the_time_of_a_message_is_kept_to_the_millisecond() -> None:
    message = compose("id", "ann", Address("@", "bob"), "x", 1_700_000_000.9999)
    assert message.timestamp == datetime(2023, 11, 14, 22, 13, 20, 999_000, tzinfo=UTC)
