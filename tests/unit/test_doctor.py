"""The doctor finds each disease that was planted, and none in a healthy machine."""

from __future__ import annotations

import shutil
import socket
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import pytest

from chatlib import doctor, machine
from chatlib.brokers import registry
from chatlib.requirements import fits, misfits, requirements_of


@pytest.fixture(autouse=True)
def of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)


def program(folder: Path, name: str, script: str) -> Path:
    """A program of that name in `folder`."""
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


# Python and packages


def test_python_that_is_new_enough_is_fine_and_an_old_one_a_problem() -> None:
    assert doctor.python((3, 11, 0), "/usr/bin/python3").state == "ok"
    old = doctor.python((3, 10, 12), "/usr/bin/python3")
    assert old.state == "problem" and "3.10.12 at /usr/bin/python3" in old.found and "3.11" in old.fix


@pytest.mark.parametrize(
    ("version", "versions", "answer"),
    [
        ("1.4.4", ">=1.3,<2", True),
        ("2.0", ">=1.3,<2", False),
        ("2", "<2.0.0", False),
        ("1.2.9", ">=1.3,<2", False),
        ("1.10", ">=1.9", True),  # by numbers, not by letters
        ("0.28.1", ">=0.27, <1", True),
        ("3.0", "!=3.0", False),
        ("3.0.1", "==3.0.1", True),
        ("3.0.2", "==3.0.1", False),
        ("3.0.2", "==3.0.*", True),
        ("2026.10.18", "", True),
        ("7.1.0rc1", ">=7.1", True),
        ("9.2.0+local", ">=9", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, versions: str, answer: bool) -> None:
    assert fits(version, versions) is answer


def test_requirements_are_taken_by_their_extra() -> None:
    asked = ["pika<2,>=1.3", 'pandas>=2.2; extra == "lab"', "docker (>=7.1) ; extra == 'docker'", "httpx[http2]>=0.27"]
    assert requirements_of("", asked) == [("pika", "<2,>=1.3"), ("httpx", ">=0.27")]
    assert requirements_of("lab", asked) == [("pandas", ">=2.2")]
    assert requirements_of("docker", asked) == [("docker", ">=7.1")]


def test_chatlib_asks_for_pika_and_the_lab_for_jupyterlab() -> None:
    """The real metadata is read: an empty list would make every machine fit."""
    assert "pika" in dict(requirements_of(""))
    assert {"jupyterlab", "ipywidgets", "plotly", "anywidget", "pandas"} <= dict(requirements_of("lab")).keys()


def test_a_package_that_is_missing_or_too_old_is_named() -> None:
    assert misfits([("no-such-package-anywhere", ""), ("pika", ">=99"), ("psutil", ">=1")])[0] == "no-such-package-anywhere is missing"
    assert " is not >=99" in misfits([("pika", ">=99")])[0]


def test_a_missing_package_of_chatlib_is_a_problem_and_one_of_the_lab_a_warning() -> None:
    core = doctor.packages(["no-such-package-anywhere>=1"])
    lab = doctor.lab_packages(['no-such-package-anywhere>=1; extra == "lab"'])
    assert (core.state, lab.state) == ("problem", "warning")
    assert "pip install" in core.fix and "chatlib[lab]" in lab.fix
    assert doctor.packages(["psutil>=1"]).found.startswith("psutil ")


# RabbitMQ and brokers


def test_without_rabbitmq_the_three_ways_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "docker", lambda: machine.Finding("Docker", "ok", "not installed"))
    found = doctor.rabbitmq()
    assert found.state == "problem"
    assert all(way in found.fix for way in ("rabbitmq", "conda", "docker"))


def test_without_rabbitmq_a_broker_elsewhere_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", str(tmp_path / "nowhere"))
    monkeypatch.setattr(doctor, "docker", lambda: machine.Finding("Docker", "ok", "engine 28.0, client at /usr/bin/docker"))
    assert doctor.rabbitmq().state == "warning"
    monkeypatch.setattr(doctor, "docker", lambda: machine.Finding("Docker", "ok", "not installed"))
    monkeypatch.setenv("CHATLIB_BROKER_URL", "amqp://127.0.0.1/")
    assert doctor.rabbitmq().state == "warning"


def installation(version: str, plugins: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        version=version, erlang_version="25.2.3", server="/x/rabbitmq-server", erl="/x/erl", has_plugin=lambda _: plugins
    )


@pytest.mark.parametrize(("version", "state"), [("3.9.13", "warning"), ("3.10.8", "ok"), ("4.1.0", "ok"), ("", "ok")])
def test_an_old_rabbitmq_is_a_warning(version: str, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_installation", lambda: installation(version))
    found = doctor.rabbitmq()
    assert found.state == state and "Erlang 25.2.3 at /x/erl" in found.found


def test_a_rabbitmq_without_its_management_plugin_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_installation", lambda: installation("3.10.8", plugins=False))
    assert "management plugin" in doctor.rabbitmq().found and doctor.rabbitmq().state == "warning"


def test_no_broker_by_environment_is_fine() -> None:
    assert doctor.broker_url().state == "ok"


@pytest.mark.parametrize("url", ["http://127.0.0.1/", "amqp://chat:secret@127.0.0.1:1/", "amqp://"])
def test_a_broker_by_environment_that_cannot_be_used_is_a_problem(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHATLIB_BROKER_URL", url)
    found = doctor.broker_url()
    assert found.state == "problem" and "unset CHATLIB_BROKER_URL" in found.fix
    assert "secret" not in found.found + found.fix


def test_alarms_are_named_with_their_figures() -> None:
    node = {"name": "rabbit@a", "running": True, "mem_alarm": True, "mem_used": 2e9, "mem_limit": 1e9}
    assert list(doctor._raised(node)) == ["memory alarm on rabbit@a (2.0 GB used, limit 1.0 GB)"]
    node = {"name": "rabbit@a", "running": True, "disk_free_alarm": True, "disk_free": 4e7, "disk_free_limit": 5e7}
    assert list(doctor._raised(node)) == ["disk alarm on rabbit@a (40 MB free, limit 50 MB)"]
    assert list(doctor._raised({"name": "rabbit@a", "running": False})) == ["node rabbit@a is down"]
    assert not list(doctor._raised({"name": "rabbit@a", "running": True, "mem_alarm": False}))


def test_no_named_brokers_and_no_leftovers_are_fine() -> None:
    assert (doctor.named_brokers().state, doctor.leftovers().state) == ("ok", "ok")


# the machine


def test_who_has_a_port_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        taken = server.getsockname()[1]
        monkeypatch.setattr(machine, "PORTS", {taken: "AMQP"})
        assert f"{taken} (AMQP): process " in machine.ports().found
    found = machine.ports()
    assert found.state == "ok" and found.found == f"{taken} (AMQP): free"


@pytest.mark.parametrize(("free", "state"), [(10_000_000, "problem"), (400_000_000, "warning"), (5_000_000_000, "ok")])
def test_a_full_disk_is_a_problem(free: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**12, 10**12 - free, free))
    assert machine.disk().state == state


@pytest.mark.parametrize(("free", "state"), [(100_000_000, "problem"), (700_000_000, "warning"), (8_000_000_000, "ok")])
def test_too_little_memory_is_a_problem(free: int, state: str) -> None:
    assert machine.memory(free).state == state


def test_a_machine_whose_name_has_no_address_is_a_warning() -> None:
    found = machine.host_name("lab7", lambda name: ["127.0.0.1"] if name == "localhost" else [])
    assert found.state == "warning" and "127.0.1.1 lab7" in found.fix


def test_a_localhost_that_is_elsewhere_is_a_problem() -> None:
    assert machine.host_name("lab7", lambda name: ["10.0.0.7"] if name == "lab7" else []).state == "problem"


def test_a_machine_whose_names_have_addresses_is_fine() -> None:
    found = machine.host_name("lab7", lambda name: ["127.0.0.1"] if name == "localhost" else ["10.0.0.7"])
    assert found.state == "ok" and "lab7 is 10.0.0.7" in found.found


@pytest.mark.parametrize(
    ("addresses", "works", "state"),
    [(["127.0.0.1"], False, "ok"), (["::1", "127.0.0.1"], True, "ok"), (["::1", "127.0.0.1"], False, "warning")],
)
def test_a_localhost_of_ipv6_that_does_not_work_is_a_warning(
    addresses: list[str], works: bool, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_addresses", lambda _: addresses)
    monkeypatch.setattr(machine, "_listens", lambda _: works)
    assert machine.ipv6().state == state


@pytest.mark.parametrize(
    ("script", "state", "words"),
    [
        ("echo 28.0.1", "ok", "engine 28.0.1"),
        ("echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1", "warning", "usermod -aG docker"),
        ("echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1", "warning", "systemctl start docker"),
    ],
)
def test_docker_is_asked_for_its_engine(script: str, state: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the words that Docker's own client says."""
    program(tmp_path / "bin", "docker", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(machine, "misfits", lambda _: [])
    found = machine.docker()
    assert found.state == state and words in found.found + found.fix


def test_no_docker_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.docker().state == "ok"


def test_a_state_folder_of_somebody_else_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> Path:
        raise PermissionError("the folder belongs to another user")

    monkeypatch.setattr(registry, "state_folder", refuse)
    found = machine.state_folder()
    assert found.state == "problem" and "XDG_STATE_HOME" in found.fix


# all of it


def test_a_check_that_fails_itself_is_a_warning_and_the_others_go_on() -> None:
    def broken() -> machine.Finding:
        raise RuntimeError("no")

    first, second = doctor.examine([broken, lambda: machine.Finding("x", "ok", "y")])
    assert first.state == "warning" and "RuntimeError" in first.found
    assert second.check == "x"


def test_everything_that_is_wrong_comes_with_a_fix_and_nothing_that_is_right() -> None:
    found = doctor.examine()
    assert len(found) == len(doctor.CHECKS) and len({finding.check for finding in found}) == len(found)
    assert all(bool(finding.fix) == (finding.state != "ok") for finding in found), found
    assert not [finding for finding in found if "failed" in finding.found]
