"""Names: escaping is reversible, free of collisions and safe in topics; what is refused says its rule."""

from __future__ import annotations

import json
import re
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from chatlib.errors import ChatError, InvalidAddress, InvalidName
from chatlib.names import (
    MAX_ESCAPED_BYTES,
    Address,
    check_chat_name,
    check_group_name,
    check_user_name,
    escape,
    history_queue,
    inbox_queue,
    parse_address,
    receipts_queue,
    retry_queue,
    unescape,
    user_of_queue,
)
from tests.support import SHARED

SPECIAL = ".*#/%"
REAL = [
    "bob", "Bob", "Lnx|Lapp", "d3vic3_", "[GuS]", "{x}", "a`b^c", "FreeCodeCamp/ruby", "#c", "x.y", "50%", "%2E", "a*b", "C++",
    "café", "Мария", "李雷", "بهنام", "שלום", "नमस्ते", "می‌خواهم", "🦊", "👨‍👩‍👧‍👦", "❤️", "🇧🇷", "ß", "İstanbul", "a@b",
    "❤️‍🔥", "👁️‍🗨️", "1️⃣", "#️⃣", "©️", "☕︎", "葛\U000e0100", "ᠠ᠋", "ന്‍", "🏳️‍🌈", "👩🏽‍🚀", "bob❤️", "n" * 200, "🦊" * 60,
]  # fmt: skip

BLANKS = "\u034f\u115f\u1160\u17b4\u17b5\u2065\u2800\u3164\uffa0\ufff0\ufff8\U00013441\U00016fe4\U0001d159\U000e0000\U000e0080\U000e01f0"
SELECTORS = "\ufe00\ufe0e\ufe0f\U000e0100\U000e01ef\u180b\u180f"


IGNORABLE = [
    (0x034F, 0x034F), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F), (0x2065, 0x2065), (0x2800, 0x2800), (0x3164, 0x3164),
    (0xFE00, 0xFE0F), (0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x13441, 0x13442), (0x16FE4, 0x16FE4), (0x1D159, 0x1D159), (0xE0000, 0xE0FFF),
]  # fmt: skip


def is_ignorable(character: str) -> bool:
    """By the ranges of Unicode's Default_Ignorable_Code_Point, written down a second time, and the blanks beside them."""
    return any(first <= ord(character) <= last for first, last in IGNORABLE)


visible = st.characters(blacklist_categories=["Cc", "Cs", "Cf", "Zs", "Zl", "Zp"]).filter(lambda character: not is_ignorable(character))
names = st.text(visible, min_size=1, max_size=40).filter(
    lambda name: not name.startswith("@") and len(escape(unicodedata.normalize("NFC", name)).encode()) <= MAX_ESCAPED_BYTES
)
texts = st.text(max_size=60)


@given(texts)
@example("%2E")
@example("%252E")
@example("%")
def test_escaping_is_reversible(text: str) -> None:
    assert unescape(escape(text)) == text


@given(st.text("%.*#/2EA35Fab", max_size=12), st.text("%.*#/2EA35Fab", max_size=12))
def test_two_names_never_share_an_escape(one: str, other: str) -> None:
    """The alphabet is the one in which a collision could hide: the escaped characters and the digits of their escapes."""
    assert (escape(one) == escape(other)) == (one == other)


@given(texts)
def test_nothing_that_a_topic_or_a_url_path_interprets_is_left(text: str) -> None:
    assert not re.search(r"[.*#/]", escape(text))


@given(names)
def test_queues_of_a_user_are_his_alone_and_fit_into_amqp(name: str) -> None:
    user = check_user_name(name)
    for queue in (inbox_queue(user), receipts_queue(user)):
        assert user_of_queue(queue) == user
        assert len(queue.encode()) <= 255
        assert not queue.startswith("amq.")
    assert inbox_queue(user) != receipts_queue(user)
    assert user_of_queue(history_queue(user)) is None


@pytest.mark.parametrize("queue", ["dead-letters", retry_queue(1000), "inbox.", "inbox", "other.bob", ""])
def test_other_queues_belong_to_nobody(queue: str) -> None:
    assert user_of_queue(queue) is None


@given(names)
def test_checking_a_checked_name_changes_nothing(name: str) -> None:
    once = check_user_name(name)
    assert check_user_name(once) == once == unicodedata.normalize("NFC", name)


@pytest.mark.parametrize("name", REAL)
def test_names_that_people_use_pass_as_they_are(name: str) -> None:
    assert check_user_name(name) == unicodedata.normalize("NFC", name)
    assert check_group_name(name) == unicodedata.normalize("NFC", name)
    assert parse_address("@" + name) == Address("@", check_user_name(name))
    assert str(parse_address("#" + name)) == "#" + check_group_name(name)


def test_every_name_of_the_real_transcript_passes_and_stays_apart() -> None:
    if not SHARED.is_dir():
        pytest.skip("no shared data beside the project")
    users, groups = set(), set()
    with (SHARED / "data" / "real-chat.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            users.add(record["sender"])
            groups.add(record["group"])
    assert len(users) >= 972 and len(groups) == 17
    assert len({inbox_queue(check_user_name(user)) for user in users}) == len(users)
    for group in groups:
        assert str(parse_address(group if group.startswith("#") else "#" + group)).lstrip("#") == group.lstrip("#")


def test_case_and_compatibility_forms_are_different_users_and_composition_is_not() -> None:
    assert len({inbox_queue(check_user_name(name)) for name in ("Bob", "bob", "BOB", "ｂｏｂ")}) == 4
    assert check_user_name("cafe\u0301") == check_user_name("caf\u00e9")


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("", "empty"),
        (" ", "spaces"),
        ("a b", "spaces"),
        ("a\u00a0b", "spaces"),
        ("a\u3000b", "spaces"),
        ("a\nb", "control characters"),
        ("a\tb", "control characters"),
        ("a\x00b", "control characters"),
        ("a\x7f", "control characters"),
        ("a\x85", "control characters"),
        ("a\u2028b", "line separators"),
        ("a\u2029b", "paragraph separators"),
        ("a\u200bb", "invisible"),
        ("\u202ebob", "invisible"),
        ("bob\u2066", "invisible"),
        ("\ufeffbob", "invisible"),
        ("b\u00adob", "invisible"),
        ("\ud800", "surrogate"),
        ("\u200d", "visible"),
        ("\u200c\u200d", "visible"),
        ("bob\u200d", "behind a visible"),
        ("b\u200cob", "behind a visible"),
        ("❤️‍\u200d", "behind a visible"),
        ("\u200d❤️", "behind a visible"),
        ("\u212a\u200d", "behind a visible"),  # the sign of kelvin, in NFC the letter K
        ("1\ufe0f", "behind a visible"),
        ("\U000e0041", "invisible"),
        ("n" * 241, "240 bytes"),
        ("." * 81, "240 bytes"),
        ("🦊" * 61, "240 bytes"),
    ],
)
def test_what_is_refused_says_which_rule(name: str, rule: str) -> None:
    for check in (check_user_name, check_group_name):
        with pytest.raises(InvalidName, match=rule) as caught:
            check(name)
        assert isinstance(caught.value, ValueError) and isinstance(caught.value, ChatError) and caught.value.definite


@pytest.mark.parametrize("blank", BLANKS + SELECTORS, ids=lambda character: f"U+{ord(character):04X}")
def test_what_shows_nothing_is_no_name_and_makes_none_of_another(blank: str) -> None:
    for name in (blank, blank * 3, f"bob{blank}", f"{blank}bob", f"b{blank}ob"):
        for check in (check_user_name, check_group_name):
            with pytest.raises(InvalidName, match=rf"invisible .*found U\+{ord(blank):04X} in"):
                check(name)


@pytest.mark.parametrize("blank", BLANKS, ids=lambda character: f"U+{ord(character):04X}")
def test_a_blank_is_refused_behind_any_character(blank: str) -> None:
    with pytest.raises(InvalidName, match="invisible characters"):
        check_user_name(f"é{blank}é")


@given(st.text(st.sampled_from("bé1❤漢" + BLANKS + SELECTORS + "\u200c\u200d\u20e3\u212a"), max_size=8))
def test_whatever_passes_begins_with_something_visible_and_passes_again(text: str) -> None:
    try:
        name = check_user_name(text)
    except InvalidName:
        return
    assert check_user_name(name) == name and unescape(escape(name)) == name
    assert name[0] in "bé1❤漢K\u20e3" or name[1] == "\u20e3"
    assert not set(BLANKS) & set(name)


@pytest.mark.parametrize("name", [None, 7, b"bob", ["bob"], ("b",)])
def test_what_is_no_text_is_refused_by_type(name: object) -> None:
    with pytest.raises(InvalidName, match=type(name).__name__):
        check_user_name(name)  # type: ignore[arg-type]
    with pytest.raises(InvalidAddress):
        parse_address(name)  # type: ignore[arg-type]


@given(texts)
def test_any_text_is_a_name_or_a_refusal_and_what_passes_fits(text: str) -> None:
    try:
        name = check_group_name(text)
    except InvalidName:
        return
    name.encode()
    assert len(escape(name).encode()) <= MAX_ESCAPED_BYTES
    assert parse_address("#" + text) == Address("#", name)


def test_the_limit_is_exact() -> None:
    assert len(check_user_name("n" * 240)) == 240
    assert len(check_user_name("." * 80)) == 80


def test_the_sigil_of_a_user_does_not_lead_his_name() -> None:
    with pytest.raises(InvalidName, match="sigil"):
        check_user_name("@bob")
    with pytest.raises(InvalidName, match="sigil"):
        parse_address("@@bob")
    assert parse_address("##c") == Address("#", "#c")
    assert parse_address("#@ops") == Address("#", "@ops")


@given(texts)
def test_an_address_without_a_sigil_is_refused(text: str) -> None:
    assume(text[:1] not in ("@", "#"))
    with pytest.raises(InvalidAddress, match="first character"):
        parse_address(text)


@pytest.mark.parametrize("name", ["", "a b", "a\x00b", "chatlib chat " + "n" * 240, "x" * 255, "🦊" * 63, "."])
def test_a_chat_may_be_called_nearly_anything(name: str) -> None:
    assert check_chat_name(name) == name


@pytest.mark.parametrize(
    ("name", "rule"), [("x" * 256, "255 bytes"), ("🦊" * 64, "255 bytes"), ("a\ud800", "surrogate"), (7, "int"), (b"x", "bytes")]
)
def test_what_a_chat_cannot_be_called_says_which_rule(name: Any, rule: str) -> None:
    with pytest.raises(InvalidName, match=rule):
        check_chat_name(name)


@pytest.mark.parametrize("address", ["@", "#"])
def test_a_sigil_alone_is_no_address(address: str) -> None:
    with pytest.raises(InvalidName, match="empty"):
        parse_address(address)
