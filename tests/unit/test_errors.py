"""The tree of errors: what its docstring says is what the classes are; each is said, definite or not, and can be constructed."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import chatlib
from chatlib import errors
from chatlib.errors import BrokerStartFailed, ChatError, DecodeError, InboxFull, ManagementError, RateLimited

CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == errors.__name__
}
LINE = re.compile(r"^    (?P<indent> *)(?P<name>[A-Z]\w+)(?: {2,}| )(?P<definite>definite|INDEFINITE|base of all)")


def documented() -> dict[str, tuple[str | None, bool]]:
    """Name -> (parent, definite) as the docstring draws it."""
    tree: dict[str, tuple[str | None, bool]] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = LINE.match(line)
        if not found:
            continue
        depth = len(found["indent"])
        while path and path[-1][0] >= depth:
            path.pop()
        tree[found["name"]] = (path[-1][1] if path else None, found["definite"] != "INDEFINITE")
        path.append((depth, found["name"]))
    return tree


def test_the_docstring_is_the_tree() -> None:
    actual = {}
    for name, cls in CLASSES.items():
        parents = [base.__name__ for base in cls.__bases__ if base.__name__ in CLASSES]
        assert len(parents) == (0 if cls is ChatError else 1)
        actual[name] = (parents[0] if parents else None, cls.definite)
    assert documented() == actual


def test_all_are_public() -> None:
    assert sorted(errors.__all__) == sorted(CLASSES)
    assert all(getattr(chatlib, name) is cls for name, cls in CLASSES.items())
    assert set(errors.__all__) <= set(chatlib.__all__)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_each_says_when_it_happens(name: str) -> None:
    assert len((CLASSES[name].__doc__ or "").strip()) > 20
    assert (CLASSES[name].__doc__ or "") != (CLASSES[name].__base__.__doc__ or "")


def test_no_builtin_is_shadowed() -> None:
    import builtins

    assert not [name for name in CLASSES if hasattr(builtins, name)]


def test_those_that_carry_something_carry_it() -> None:
    assert InboxFull("full", ["ann", "bob"]).who == ("ann", "bob")
    assert InboxFull("full").who == ()
    assert DecodeError("no", b"\xff").body == b"\xff"
    assert RateLimited("slow down", 1.5).retry_after == 1.5
    assert ManagementError("no", 404).status == 404
    failed = BrokerStartFailed("it ended", ["one", "two"])
    assert failed.log == ["one", "two"] and "it ended" in str(failed) and "  | two" in str(failed)


@pytest.mark.parametrize(
    "error", [InboxFull("full", ["ann"]), DecodeError("no", b"x"), RateLimited("slow", 2.0), ManagementError("no", 500)]
)
def test_they_go_to_another_process(error: ChatError) -> None:
    """A pool of processes pickles what its workers raise; an error that cannot be unpickled breaks the pool."""
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    assert type(again) is type(error) and str(again) == str(error) and vars(again) == vars(error)
