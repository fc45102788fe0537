"""Refuse saved notebooks that carry widget state, an error nobody announced, or too many bytes. Arguments: the files."""

from __future__ import annotations

import json
import sys
from pathlib import Path

LARGEST = 300_000  # bytes; pictures are most of it, and a reader on a code-hosting site loads them all


def problems(path: Path) -> list[str]:
    """Return what is wrong with the notebook at `path`, one sentence each."""
    text = path.read_text(encoding="utf-8")
    try:
        book = json.loads(text)
    except ValueError as error:
        return [f"not valid JSON: {error}"]
    found = []
    if len(text.encode()) > LARGEST:
        found.append(f"{len(text.encode()) // 1000} kB, the limit is {LARGEST // 1000} kB")
    if book.get("metadata", {}).get("widgets"):
        found.append("carries widget state; save it with nbstripout --keep-output --keep-count")
    for number, cell in enumerate(book.get("cells", []), start=1):
        if cell["cell_type"] != "code":
            continue
        announced = "raises-exception" in cell["metadata"].get("tags", [])
        if not announced and any(output["output_type"] == "error" for output in cell["outputs"]):
            found.append(f"cell {number} ended in an error, and its tags do not say raises-exception")
    return found


def main(names: list[str]) -> int:
    """Print the problems of all named notebooks; exit status 1 if there are any."""
    found = [f"{name}: {problem}" for name in names for problem in problems(Path(name))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
