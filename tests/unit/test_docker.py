"""What DockerBroker says where no engine can be used; and what needs no engine to be seen."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import chatlib
from chatlib.brokers import DockerBroker, default_broker
from chatlib.brokers.docker.engine import owner_label
from chatlib.errors import BrokerNotInstalled, BrokerStartFailed
from tests.support import ROOT


@pytest.fixture
def no_local_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CHATLIB_BROKER_URL", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("CHATLIB_RABBITMQ_SERVER", "/nowhere/rabbitmq-server")


def said_without_rights(make: Callable[[], object]) -> str:
    """What `make` raises for a user who is not root: kind and text. In a child where we are root."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            make()
            os.write(write_end, b"nothing")
        except BaseException as error:
            os.write(write_end, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_it_is_a_public_name_and_loads_docker_only_when_it_is_made() -> None:
    code = "import chatlib, sys; chatlib.DockerBroker; from chatlib import *; DockerBroker; sys.exit('docker.client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False).returncode == 0
    assert chatlib.DockerBroker is DockerBroker
    with pytest.raises(AttributeError, match="DockerBrocker"):
        chatlib.DockerBrocker  # noqa: B018


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    with pytest.raises(BrokerNotInstalled, match=r"pip install 'chatlib\[docker\]'"):
        DockerBroker()


def test_without_an_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(BrokerNotInstalled, match=r"no Docker engine(.|\n)*DOCKER_HOST(.|\n)*apt install"):
        DockerBroker()
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/docker")
    with pytest.raises(BrokerNotInstalled, match=r"does not run(.|\n)*systemctl start docker"):
        DockerBroker()


def test_an_engine_that_does_not_run_any_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = str(tmp_path / "left.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)  # and is closed: the file stays
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with pytest.raises(BrokerNotInstalled, match="does not run"):
        DockerBroker()


def test_without_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, no_local_one: None) -> None:
    import docker  # in the child it could not be read any more
    import docker.context
    import docker.transport
    import requests.packages  # noqa: F401

    assert docker.errors
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen()
        (tmp_path / "docker.sock").chmod(0)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'docker.sock'}")
        told = said_without_rights(DockerBroker)
        by_default = said_without_rights(default_broker)
    assert told.startswith("BrokerStartFailed") and "may not use it" in told and "usermod -aG docker" in told
    assert by_default.startswith("BrokerNotInstalled") and "apt install rabbitmq-server" in by_default and "usermod" in by_default


@pytest.mark.parametrize("address", ["tcp://docker.example.org:2375", "ssh://me@docker.example.org"])
def test_an_engine_of_another_machine(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(BrokerStartFailed, match=r"another machine's(.|\n)*unset DOCKER_HOST"):
        DockerBroker()


@pytest.mark.parametrize("address", ["nonsense", "gopher://here", "tcp://127.0.0.1:notaport"])
def test_a_docker_host_that_is_no_address(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(BrokerStartFailed, match="DOCKER_HOST"):
        DockerBroker()


def test_something_else_that_listens_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import threading

    path = str(tmp_path / "other.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        served = threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True)
        served.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(BrokerStartFailed, match="DOCKER_HOST"):
            DockerBroker()
        served.join(5)


@pytest.mark.parametrize("name", ["", "-x", "a b", "ä", "x" * 64, "a/b"])
def test_names_that_docker_cannot_take(name: str) -> None:
    for given in ({"name": name}, {"volume": name}):
        with pytest.raises(chatlib.InvalidName, match="1 to 63"):
            DockerBroker(**given)


def test_a_detached_one_needs_a_name() -> None:
    with pytest.raises(ValueError, match="needs a name"):
        DockerBroker(detached=True)


def test_who_lives_is_told_by_the_label() -> None:
    from chatlib.brokers.docker.engine import _owner_is_dead

    ours = owner_label()
    assert not _owner_is_dead(ours)
    assert _owner_is_dead(ours.replace('"created": ', '"created": 1'))  # the same pid, of another time
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert _owner_is_dead(ours.replace(f'"pid": {os.getpid()}', f'"pid": {gone.pid}'))
    for strange in ("", "null", "{}", ours.replace('"machine": "', '"machine": "not ')):
        assert not _owner_is_dead(strange)


def test_without_any_broker_all_ways_are_told(monkeypatch: pytest.MonkeyPatch, no_local_one: None) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(BrokerNotInstalled, match=r"apt install(.|\n)*conda(.|\n)*docker compose"):
        default_broker()
