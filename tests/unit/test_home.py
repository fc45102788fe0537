"""Which plugins a node needs, read from their descriptions; that a node runs with them is seen by every test with a broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from chatlib.brokers.home import needed


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder as RabbitMQ's: rabbit needs a library, management needs rabbit and another plugin; one more that nobody needs."""
    for name, version, applications in (
        ("rabbit", "4.0.5", "kernel, stdlib, rabbit_common,'ra'"),
        ("rabbit_common", "4.0.5", "kernel"),
        ("ra", "2.15.0", ""),
        ("rabbitmq_management", "4.0.5", "\n  rabbit,\n  cowboy\n"),
        ("cowboy", "2.12.0", "rabbit"),
        ("rabbitmq_mqtt", "4.0.5", "rabbit"),
    ):
        folder = tmp_path / f"{name}-{version}" / "ebin"
        folder.mkdir(parents=True)
        (folder / f"{name}.app").write_text(f'{{application, {name}, [{{vsn, "{version}"}},\n {{applications, [{applications}]}}]}}.\n')
    (tmp_path / "README").write_text("not a plugin")
    return tmp_path


def test_what_is_needed_is_rabbit_the_plugins_and_what_they_name(plugins: Path) -> None:
    found = needed(plugins, ["rabbitmq_management"])
    assert found == {
        "rabbit": plugins / "rabbit-4.0.5",
        "rabbit_common": plugins / "rabbit_common-4.0.5",
        "ra": plugins / "ra-2.15.0",
        "rabbitmq_management": plugins / "rabbitmq_management-4.0.5",
        "cowboy": plugins / "cowboy-2.12.0",
    }


def test_no_plugin_at_all_is_rabbit_alone(plugins: Path) -> None:
    assert set(needed(plugins, []) or ()) == {"rabbit", "rabbit_common", "ra"}


@pytest.mark.parametrize("spoil", ["archive", "archived library", "no description", "another form", "no folder"])
def test_what_is_not_understood_is_left_to_rabbitmq(plugins: Path, spoil: str) -> None:
    """None: the node is started with all there is, as ever."""
    description = plugins / "cowboy-2.12.0" / "ebin" / "cowboy.app"
    if spoil == "archive":
        (plugins / "rabbitmq_management-4.0.5").rename(plugins / "away")
        (plugins / "rabbitmq_management-4.0.5.ez").write_bytes(b"PK")
    elif spoil == "archived library":
        (plugins / "ra-2.15.0").rename(plugins / "away")
        (plugins / "ra-2.15.0.ez").write_bytes(b"PK")
    elif spoil == "no description":
        description.unlink()
    elif spoil == "another form":
        description.write_text("{application, cowboy, []}.")
    assert needed(plugins / "nowhere" if spoil == "no folder" else plugins, ["rabbitmq_management"]) is None
