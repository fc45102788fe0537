"""What chatlib's package metadata asks for, and whether it is installed: for the doctor.

`packaging` would do the same; chatlib does not need it for anything else, and the requirements are our own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import metadata

__all__ = ["fits", "misfits", "numbers", "requirements_of"]


def requirements_of(extra: str, requirements: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """(name, versions) of what chatlib (or `requirements`) asks for under this extra ("" for what it always needs)."""
    found = []
    for requirement in (metadata.requires("chatlib") or []) if requirements is None else requirements:
        what, _, condition = requirement.partition(";")
        named = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", condition)
        match = re.match(r"\s*([\w.-]+)(?:\[[^]]*\])?\s*\(?([^)]*)\)?", what)
        if match and (named[1] if named else "") == extra:
            found.append((match[1], match[2].strip()))
    return found


def misfits(wanted: Sequence[tuple[str, str]]) -> list[str]:
    """What is wrong with each of `wanted` that is wrong, in words: missing, or of another version."""
    wrong = []
    for name, versions in wanted:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is missing")
            continue
        if not fits(version, versions):
            wrong.append(f"{name} {version} is not {versions}")
    return wrong


def fits(version: str, versions: str) -> bool:
    """Whether `version` is one of `versions`, such as ">=1.3,<2"; of its numbers only (a release candidate counts as the release)."""
    have = numbers(version)
    for part in filter(None, (part.strip() for part in versions.split(","))):
        match = re.match(r"(>=|<=|==|!=|~=|>|<)\s*([\w.*]+)", part)
        if not match:
            continue
        operator, limit = match[1], numbers(match[2])
        length = max(len(have), len(limit))
        left, right = have + (0,) * (length - len(have)), limit + (0,) * (length - len(limit))
        fits = {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right, "!=": left != right}
        if not fits.get(operator, left >= right if operator == "~=" else left[: len(limit)] == limit):
            return False
    return True


def numbers(version: str) -> tuple[int, ...]:
    """The leading numbers of a version: "4.0.5rc1" is (4, 0, 5)."""
    return tuple(int(part) for part in re.findall(r"\d+", re.split(r"[a-z+*]", version)[0]))
