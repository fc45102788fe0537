"""The process of one contestant: `python -m benchmarks.worker MODULE ACTION`, the work as a JSON line on stdin, results as such on stdout.

A process for each, since in one process they would share an interpreter lock and a garbage collector.
"""

from __future__ import annotations

import importlib
import sys

from benchmarks.work import Work, say

if __name__ == "__main__":
    module, action = sys.argv[1:]
    work = Work.load(sys.stdin.readline())
    say(getattr(importlib.import_module(f"benchmarks.contestants.{module}"), action)(work))
