"""Transcripts and membership: the format, its errors, and who gets what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatlib.errors import ChatError
from chatlib.membership import Change, Membership
from chatlib.names import check_group_name, check_user_name
from chatlib.transcript import (
    Record,
    TranscriptError,
    TranscriptEvent,
    TranscriptMessage,
    group_address,
    parse_transcript,
    read_transcript,
    small_transcript,
)
from tests.support import SHARED

TS = "2024-05-01T10:00:00Z"
REAL = SHARED / "data" / "real-chat.jsonl"


def line(number: int = 1, **fields: object) -> str:
    """A line of a transcript; a message unless `event` is given; a field that is None is left out."""
    found: dict[str, object] = {"id": number, "ts": TS, "group": "#g", "sender": "ann", **fields}
    if "event" not in found:
        found.setdefault("text", "hi")
    return json.dumps({key: value for key, value in found.items() if value is not None})


def said(sender: str, group: str = "#g", at: float = 0.0) -> TranscriptMessage:
    return TranscriptMessage(1, at, group, sender, "hi")


def did(event: str, sender: str, group: str = "#g", new: str = "", at: float = 0.0) -> TranscriptEvent:
    return TranscriptEvent(1, at, group, event, sender, new)


def after(*records: Record, gap: float | None = None) -> tuple[Membership, Change]:
    """The membership after `records`, and what the last of them changed."""
    membership = Membership(gap=gap)
    change = Change()
    for record in records:
        change = membership.step(record)
    return membership, change


# reading


def test_a_message_and_an_event_come_with_all_their_fields() -> None:
    message, event = parse_transcript(
        [
            line(1, text="hi", mentions=["bob"], reply_to=[7], action=True, src="irc"),
            line(2, event="nick", new="ann2", reason="tired", group="FreeCodeCamp/ruby", ts="2024-05-01T12:00:00+02:00"),
        ]
    )
    at = 1714557600.0  # date -u -d 2024-05-01T10:00:00Z +%s
    assert message == TranscriptMessage(1, at, "#g", "ann", "hi", ("bob",), (7,), action=True, notice=False)
    assert event == TranscriptEvent(2, at, "#FreeCodeCamp/ruby", "nick", "ann", "ann2", "tired")


@pytest.mark.parametrize(("name", "address"), [("#ubuntu", "#ubuntu"), ("FreeCodeCamp/ruby", "#FreeCodeCamp/ruby"), ("##c", "##c")])
def test_a_group_becomes_an_address(name: str, address: str) -> None:
    assert group_address(name) == address


def test_names_take_the_form_that_chatlib_gives_them() -> None:
    """An "é" of one character or of two is the same name, or a replay would wait for somebody who does not exist."""
    composed, decomposed = parse_transcript([line(1, sender="Zoe\u0301"), line(2, sender="Zo\u00e9")]).messages
    assert composed.sender == decomposed.sender == "Zo\u00e9"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("{", "not JSON"),
        ('{"id": 1', "not JSON"),
        ("[1]", "object"),
        ("null", "object"),
        (b'{"id": "\xff"}', "UTF-8"),
        (line(2, sender=None), "sender is missing"),
        (line(2, sender=""), "sender is empty"),
        (line(2, sender=7), "sender must be str, not int"),
        (line(2, sender="two words"), "spaces"),
        (line(2, group="#"), "empty"),
        (line(2, group="x" * 300), "240 bytes"),
        (line(2, id="2"), "id must be int"),
        (line(2, id=True), "id must be int"),
        (line(1), "used in line 1 already"),
        (line(2, ts="yesterday"), "ISO 8601"),
        (line(2, ts=12), "ts must be str"),
        (line(2, text=""), "text is empty"),
        (line(2, text="a\0b"), "NUL"),
        (line(2, text="\ud800"), "surrogate"),
        (line(2, mentions="bob"), "mentions must be list"),
        (line(2, reply_to=["1"]), "list of int"),
        (line(2, action="yes"), "action must be bool"),
        (line(2, event="kick"), "join, part, quit, nick"),
        (line(2, event="nick"), "new is missing"),
        ("[" * 100_000, ""),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_the_reason(bad: str | bytes, says: str) -> None:
    with pytest.raises(TranscriptError, match="line 3") as caught:
        parse_transcript([line(1), "", bad], source="chat.jsonl")
    assert says in str(caught.value)
    assert (caught.value.line, caught.value.source) == (3, "chat.jsonl")
    assert isinstance(caught.value, ChatError)
    assert isinstance(caught.value, ValueError)


def test_a_missing_file_is_a_typed_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(TranscriptError, match=r"absent\.jsonl"):
        read_transcript(tmp_path / "absent.jsonl")
    with pytest.raises(TranscriptError, match="cannot be read"):
        read_transcript(tmp_path)


def test_blank_lines_a_byte_order_mark_windows_lines_and_odd_separators_are_read(tmp_path: Path) -> None:
    """U+2028 inside a text is no end of a line, though str.splitlines() says so."""
    path = tmp_path / "chat.jsonl"
    odd = json.dumps(json.loads(line(2, text="a\u2028b\x85c")), ensure_ascii=False)
    path.write_bytes(f"\ufeff{line(1)}\r\n\r\n{odd}".encode())
    assert [message.text for message in read_transcript(path).messages] == ["hi", "a\u2028b\x85c"]


def test_null_stands_for_an_optional_field_that_is_absent() -> None:
    nothing = {"mentions": None, "reply_to": None, "action": None, "notice": None}
    text = json.dumps({**json.loads(line(1)), **nothing})
    assert parse_transcript([text]).records == parse_transcript([line(1)]).records


def test_an_empty_file_is_an_empty_transcript(tmp_path: Path) -> None:
    path = tmp_path / "chat.jsonl"
    path.touch()
    transcript = read_transcript(path)
    assert len(transcript) == transcript.summary().deliveries == 0


# membership


def test_join_brings_online_and_makes_a_member() -> None:
    membership, change = after(did("join", "ann"))
    assert change == Change(online=("ann",), joined=(("ann", "#g"),))
    assert membership.members("#g") == membership.online == {"ann"}


def test_a_message_goes_to_the_other_members_and_its_sender_joins_by_it() -> None:
    membership, change = after(did("join", "bob"), said("ann"))
    assert change == Change(online=("ann",), joined=(("ann", "#g"),), recipients=frozenset({"bob"}))
    assert membership.step(said("bob")).recipients == {"ann"}


def test_part_leaves_that_group_only_and_stays_online() -> None:
    membership, change = after(said("ann", "#g"), said("ann", "#h"), did("part", "ann", "#g"))
    assert change == Change(left=(("ann", "#g"),))
    assert (membership.groups_of("ann"), membership.online) == (["#h"], {"ann"})


def test_quit_goes_offline_and_stays_a_member_whose_inbox_collects() -> None:
    membership, change = after(said("bob"), said("ann"), did("quit", "bob"))
    assert change == Change(offline=("bob",))
    assert membership.step(said("ann")).recipients == {"bob"}
    assert "bob" not in membership.online


@pytest.mark.parametrize("act", [said("bob"), did("join", "bob"), did("part", "bob"), did("nick", "bob", new="bob")])
def test_any_later_act_of_somebody_offline_brings_him_online(act: Record) -> None:
    membership, change = after(said("bob"), did("quit", "bob"), act)
    assert change.online == ("bob",)
    assert "bob" in membership.online


def test_a_new_name_takes_the_place_of_the_old_one_in_all_its_groups() -> None:
    membership, change = after(said("ann", "#g"), said("ann", "#h"), did("nick", "ann", "#g", "anna"))
    assert change.joined == (("anna", "#g"), ("anna", "#h"))
    assert change.left == (("ann", "#g"), ("ann", "#h"))
    assert (change.online, change.offline) == (("anna",), ("ann",))
    assert (membership.online, membership.groups) == ({"anna"}, {"#g": {"anna"}, "#h": {"anna"}})


def test_a_new_name_that_is_a_member_already_joins_nothing_twice() -> None:
    membership, change = after(said("anna", "#g"), said("ann", "#g"), did("nick", "ann", "#g", "anna"))
    assert (change.joined, change.online, change.left) == ((), (), (("ann", "#g"),))
    assert membership.members("#g") == {"anna"}


def test_a_new_name_of_somebody_never_seen_joins_where_it_was_seen() -> None:
    membership, change = after(did("nick", "ann", "#g", "anna"))
    assert change == Change(online=("anna",), joined=(("anna", "#g"),))
    assert membership.online == {"anna"}


def test_leaving_what_one_was_never_in_changes_nothing() -> None:
    assert after(did("quit", "ann"))[1] == Change()
    assert after(did("part", "ann"))[1] == Change(online=("ann",))


def test_after_a_gap_in_the_log_a_group_begins_anew() -> None:
    """Who is in another group stays online; who is in none goes offline; the one who is seen stays a member."""
    records = (said("ann", at=0), said("bob", at=1), said("eve", at=2), said("bob", "#h", at=3))
    assert after(*records, said("ann", at=3602), gap=3600)[1].recipients == {"bob", "eve"}
    membership, change = after(*records, said("ann", at=3603), gap=3600)
    assert change == Change(left=(("bob", "#g"), ("eve", "#g")), offline=("eve",))
    assert (membership.members("#g"), membership.members("#h"), membership.online) == ({"ann"}, {"bob"}, {"ann", "bob"})
    assert after(*records, did("nick", "ann", new="anna", at=9999), gap=3600)[0].members("#g") == {"anna"}


@pytest.mark.parametrize("gap", [0, -1, float("nan")])
def test_a_gap_must_be_above_zero(gap: float) -> None:
    with pytest.raises(ValueError, match="gap"):
        Membership(gap=gap)


names = st.sampled_from("abcde")
records = st.one_of(
    st.builds(said, names, st.sampled_from(["#g", "#h"]), st.integers(0, 100)),
    st.builds(did, st.sampled_from(["join", "part", "quit"]), names, st.sampled_from(["#g", "#h"]), st.just(""), st.integers(0, 100)),
    st.builds(did, st.just("nick"), names, st.sampled_from(["#g", "#h"]), names, st.integers(0, 100)),
)


@given(st.lists(records, max_size=40), st.sampled_from([None, 10.0]))
def test_the_changes_alone_rebuild_the_state(steps: list[Record], gap: float | None) -> None:
    """A replay that carries out every change in the given order has the same members and users online."""
    membership = Membership(gap=gap)
    online: set[str] = set()
    members: set[tuple[str, str]] = set()
    for record in steps:
        change = membership.step(record)
        assert online.isdisjoint(change.online)
        online.update(change.online)
        assert members.isdisjoint(change.joined)
        members.update(change.joined)
        assert members.issuperset(change.left)
        members.difference_update(change.left)
        assert online.issuperset(change.offline)
        online.difference_update(change.offline)
        assert online == membership.online
        assert members == {(user, group) for group, users in membership.groups.items() for user in users}
        if isinstance(record, TranscriptMessage):
            assert change.recipients == {user for user, group in members if group == record.group} - {record.sender}
            assert record.sender in online
        else:
            assert not change.recipients


# the transcript that comes with chatlib


def test_the_small_transcript_has_what_it_is_for() -> None:
    transcript = small_transcript()
    summary = transcript.summary()
    assert (summary.messages, summary.events, summary.senders, summary.users, summary.groups) == (52, 18, 9, 9, 3)
    assert (summary.deliveries, summary.by_group) == (115, {"#garden": 53, "#repair-café": 46, "#reading/late-shift": 16})
    assert {record.event for record in transcript if isinstance(record, TranscriptEvent)} == {"join", "part", "quit", "nick"}
    assert any(not name.isascii() for name in transcript.users)
    assert [record.id for record in transcript] == list(range(1, 71))
    assert [record.at for record in transcript] == sorted(record.at for record in transcript)


def test_the_small_transcript_has_only_names_that_chatlib_takes() -> None:
    transcript = small_transcript()
    assert [check_user_name(name) for name in transcript.users] == list(transcript.users)
    assert ["#" + check_group_name(group[1:]) for group in transcript.groups] == list(transcript.groups)


# the real one, where it is at hand


@pytest.mark.skipif(not REAL.exists(), reason="the real transcript is not beside the project")
@pytest.mark.parametrize(("gap", "deliveries", "largest"), [(None, 3_410_605, 962), (30 * 86400, 683_477, 262)])
def test_the_real_transcript_in_numbers(gap: float | None, deliveries: int, largest: int) -> None:
    """Messages, senders and groups as its notice says; the deliveries are what a replay is measured against."""
    summary = read_transcript(REAL).summary(gap=gap)
    assert (summary.messages, summary.events, summary.senders, summary.groups) == (12_728, 1_329, 972, 17)
    assert (summary.deliveries, summary.largest, summary.largest_group) == (deliveries, largest, "#ubuntu")
