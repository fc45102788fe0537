"""Whether this machine has what the lessons need, as a table in a notebook."""

from __future__ import annotations

import importlib.util
import platform
import sys
from typing import TYPE_CHECKING

import psutil

from chatlib.brokers import find_installation
from chatlib.errors import BrokerNotInstalled

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["machine"]

PACKAGES = ("pandas", "plotly", "jupyterquiz")
MEMORY = 1_000_000_000  # bytes: a node takes 150 MB (measured), a kernel with pandas and plotly as much again


def machine() -> DataFrame:
    """One row for each thing that the lessons need: found, whether that is fine, and what to do where it is not."""
    import pandas as pd

    memory = psutil.virtual_memory().available
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    try:
        installed = find_installation()
        broker, fix = f"RabbitMQ {installed.version}, Erlang {installed.erlang_version}", ""
    except BrokerNotInstalled as exc:
        broker, fix = "none", str(exc)
    rows = [
        ("Python", platform.python_version(), sys.version_info >= (3, 11), "install Python 3.11 or newer"),
        ("broker", broker, not fix, fix),
        ("packages", "all" if not missing else f"without {', '.join(missing)}", not missing, "pip install 'chatlib[lab]'"),
        ("memory", f"{memory / 1e9:.1f} GB free", memory > MEMORY, "close other programs: 1 GB is needed"),
    ]
    table = pd.DataFrame([(what, found, "✔" if fine else "✘", "" if fine else fix) for what, found, fine, fix in rows])
    table.columns = pd.Index(["what", "found", "fine", "what to do"])
    return table.set_index("what")
