"""`chatlib chaos` as people run it: twenty faults, and the verdict; interrupted, and played again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

from chatlib.chaos.run import histories
from chatlib.chaos.schedule import Schedule
from chatlib.chaos.schedule import draw as drawn
from chatlib.events import DROPPED, FAULT_BEGAN, FAULT_ENDED, UNKNOWN
from chatlib.recorder import stream
from tests.support import ROOT, wait_until

SEED = 3  # its twenty faults have every kind, and none that waits for heartbeats
QUICK = 17  # its first three faults leave the broker up


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-c", "from chatlib.cli import app; app()", "chaos", *arguments]


def processes_of(folder: Path) -> list[psutil.Process]:
    """The actors of a run: their options name its folder."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in word for word in process.info["cmdline"] or ())
    ]


@pytest.mark.timeout(480)
def test_twenty_faults_and_nothing_is_lost(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    """1 the run, as a process of its own; 2 every fault happened and was healed; 3 they hurt; 4 the verdict; 5 all is kept, and ended."""
    folder = tmp_path / "run"
    kind = pytestconfig.getoption("--broker-kind")
    # 1
    arguments = ("--faults", "20", "--seed", str(SEED), "--broker", kind, "--output", str(folder), "--json")
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=460)
    print(done.stderr)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    print(result["sentence"], *result["problems"], sep="\n")
    # 2
    plan = drawn(SEED, 20, broker=kind)
    assert result["problems"] == []
    assert result["faults"] == Counter(step.fault for step in plan.steps)
    assert Schedule.load(folder / "schedule.json").steps == plan.steps
    hops = Counter(event["hop"] for event in stream(*histories(folder)))
    assert hops[FAULT_BEGAN] == hops[FAULT_ENDED] == 20
    # 3
    assert hops[UNKNOWN] > 0 and hops[DROPPED] > 0, "no outcome was ever unknown, nothing came twice: the faults did not hurt"
    # 4
    verdict = result["verdict"]
    assert done.returncode == 0 and result["valid"], result["sentence"]
    assert verdict["attempted"] > 2_000 and verdict["handled"] > verdict["attempted"]
    assert verdict["retried"] > 0 and verdict["dead"] > 0 and verdict["receipts"] > 0
    # 5
    assert (folder / "report.html").exists() and (folder / "verdict.json").exists()
    assert processes_of(folder) == []


@pytest.mark.timeout(240)
def test_interrupted_it_heals_ends_what_it_started_and_can_be_played_again(tmp_path: Path) -> None:
    """1 a run is interrupted in a fault; 2 nothing of it is left but its records; 3 its schedule is played again, to the end."""
    first, second = tmp_path / "first", tmp_path / "second"
    # 1
    arguments = command("--faults", "3", "--seed", str(QUICK), "--users", "6", "--processes", "3", "--output", str(first))
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        log = first / "history" / "faults.jsonl"
        wait_until(lambda: log.exists() and log.stat().st_size > 0, 90, "the first fault")
        actors = processes_of(first)
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(actors) >= 2
        os.kill(process.pid, signal.SIGINT)
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(60) == 130, said
    # 2
    assert "interrupted" in said and str(first) in said
    assert processes_of(first) == []
    assert not [child for child in (*actors, *children) if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    hops = Counter(event["hop"] for event in stream(log))
    assert hops[FAULT_BEGAN] == hops[FAULT_ENDED] >= 1
    # 3
    again = subprocess.run(
        command("--replay", str(first), "--output", str(second), "--json"), cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    result: dict[str, Any] = json.loads(again.stdout)
    assert again.returncode == 0 and result["valid"], (result["sentence"], result["problems"])
    assert Schedule.load(second / "schedule.json") == Schedule.load(first / "schedule.json")
    assert result["fault_count"] == 3 and result["seed"] == QUICK


@pytest.mark.timeout(120)
def test_ended_by_a_service_manager_it_heals_and_says_so_too(tmp_path: Path) -> None:
    """SIGTERM, as by `timeout` or a CI runner, is like Ctrl-C: nothing is left running, and the exit status is no success."""
    folder = tmp_path / "run"
    arguments = command("--faults", "3", "--seed", str(QUICK), "--users", "6", "--processes", "3", "--output", str(folder))
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        wait_until(lambda: len(processes_of(folder)) >= 2, 90, "its processes run")
        process.terminate()
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(60) == 130, said
    assert "interrupted: healed" in said and str(folder) in said
    assert processes_of(folder) == []
