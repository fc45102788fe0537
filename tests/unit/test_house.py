"""The rules of the house: the lock, the environments, the Makefile, and what no file of the project may contain."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import rattler
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import tier_of
from tests.support import ROOT, wait_until

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = ["requirements.lock", "requirements-uv.lock"]
CONDA_NAMES = {"docker": "docker-py"}  # where conda-forge calls a package differently


def requirements(*groups: str) -> dict[str, Requirement]:
    """Return what pyproject.toml asks for: the package itself and the named extras, by canonical name."""
    lines = PROJECT["dependencies"] + [line for group in groups for line in PROJECT["optional-dependencies"][group]]
    return {canonicalize_name(item.name): item for item in map(Requirement, lines)}


def locked() -> dict[str, set[Version]]:
    """Return the locked versions by canonical name (more than one where they differ by Python version)."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^ ;\\]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


def tracked_files() -> list[Path]:
    """Return the files that git knows or would take; skip where this is no git clone."""
    listing = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode != 0:
        pytest.skip("not a git clone")
    return [path for line in listing.stdout.splitlines() if (path := ROOT / line).is_file()]


# ---- the lock -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_versions_and_hashes_and_no_place(name: str) -> None:
    """Neither an index nor a folder: whose mirror is used is the business of the machine that installs."""
    lines = (ROOT / name).read_text().splitlines()
    version = re.compile(r"[\w.-]+==[\w.+]+( ; [\w\s'\"<>=!.()]+?)? \\")
    digest = re.compile(r" +--hash=sha256:[0-9a-f]{64}( \\)?")
    strange = [line for line in lines if not version.fullmatch(line) and not digest.fullmatch(line)]
    assert len(lines) > 3
    assert strange == []


def test_each_locked_package_has_a_hash() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if "==" in line.split(";")[0]:
            assert "--hash=sha256:" in following, line


def test_the_lock_fits_what_pyproject_asks_for() -> None:
    versions = locked()
    for name, requirement in requirements(*PROJECT["optional-dependencies"]).items():
        assert name in versions, f"{name} is not locked; run make lock"
        assert all(version in requirement.specifier for version in versions[name]), f"{requirement}, but {versions[name]} is locked"


def test_what_runs_here_is_what_is_locked() -> None:
    """Else the tests would tell about other versions than those that people get."""
    import importlib.metadata

    versions = locked()
    for name in requirements("lab", "docker", "dev"):
        assert Version(importlib.metadata.version(name)) in versions[name], f"{name}: run make setup"


# ---- conda ----------------------------------------------------------------------------------------------------------


def conda_environment() -> tuple[dict[str, rattler.MatchSpec], dict[str, Requirement], list[str]]:
    """Return the conda packages, the pip packages and the editable paths of environment.yml."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = {line.split()[0]: rattler.MatchSpec(line) for line in listed if isinstance(line, str)}
    pip = next(entry["pip"] for entry in listed if isinstance(entry, dict))
    editable = [line.removeprefix("-e ") for line in pip if line.startswith("-e ")]
    return conda, {canonicalize_name(item.name): item for item in map(Requirement, [x for x in pip if not x.startswith("-")])}, editable


def test_the_conda_environment_has_what_the_course_needs_and_the_broker() -> None:
    conda, pip, editable = conda_environment()
    wanted = {CONDA_NAMES.get(name, name) for name in requirements("lab", "docker")}
    assert wanted - set(conda) - set(pip) == set()
    assert {"python", "rabbitmq-server"} <= set(conda)
    assert editable == ["."]


def test_the_conda_environment_asks_for_the_same_versions_as_pyproject() -> None:
    conda, pip, _ = conda_environment()
    everything = {CONDA_NAMES.get(name, name): item for name, item in requirements(*PROJECT["optional-dependencies"]).items()}
    versions = {CONDA_NAMES.get(name, name): found for name, found in locked().items()}
    for name, spec in conda.items():
        if name in everything:
            text = str(spec.version)
            assert sorted(text.split(",")) == sorted(str(everything[name].specifier).split(",")), name
            assert all(rattler.VersionSpec(text).matches(rattler.Version(str(version))) for version in versions[name]), name
    for name, item in pip.items():
        assert item.specifier == everything[name].specifier, name


def test_the_conda_environment_takes_the_pythons_that_the_project_supports() -> None:
    spec = rattler.VersionSpec(str(conda_environment()[0]["python"].version))
    assert spec.matches(rattler.Version("3.11.9"))
    assert not spec.matches(rattler.Version("3.10.14"))


# ---- Docker ---------------------------------------------------------------------------------------------------------


def compose() -> dict[str, dict[str, object]]:
    """Return the services of docker-compose.yml."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


def test_compose_publishes_ports_on_this_machine_only() -> None:
    ports = [port for service in compose().values() for port in service["ports"]]
    assert len(ports) >= 9
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_compose_brokers_keep_their_data_and_are_healthy_only_when_clients_can_connect() -> None:
    """A fixed host name and a named volume: without either, a new container starts empty."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name in ("broker", "rabbit1", "rabbit2", "rabbit3"):
        service = document["services"][name]
        assert service["hostname"] == name
        assert f"{name}-data:/var/lib/rabbitmq" in service["volumes"] and f"{name}-data" in document["volumes"]
        assert "check_port_connectivity" in service["healthcheck"]["test"]
        assert service["environment"]["RABBITMQ_DEFAULT_USER"] != "guest"
    assert document["services"]["lab"]["depends_on"] == {"broker": {"condition": "service_healthy"}}


# ---- commands -------------------------------------------------------------------------------------------------------


def test_make_alone_lists_the_commands() -> None:
    listing = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "lab", "test", "bench", "lint", "help"):
        assert re.search(rf"^  make {target} +\w", listing, re.MULTILINE), target


@pytest.mark.parametrize("path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_shell_scripts_parse_and_may_be_executed(path: Path) -> None:
    assert path.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", path], check=True, capture_output=True)


def test_without_root_and_without_rabbitmq_setup_names_the_three_ways(tmp_path: Path) -> None:
    """And it does so before it loads a gigabyte of packages, with an exit status that is not 0."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name, text in {"id": "echo 1000", "sudo": "exit 1"}.items():
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CHATLIB_BROKER_URL"}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CHATLIB_RABBITMQ_SERVER": str(tmp_path / "none"), "PYTHON": sys.executable}
    command = [tmp_path / "scripts" / "setup.sh", "lab"]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no RabbitMQ here, and no root" in done.stdout
    assert re.findall(r"^  (apt|conda|Docker) ", done.stdout, re.MULTILINE) == ["apt", "conda", "Docker"]
    assert not (tmp_path / ".venv").exists()


def test_lab_settings_are_read_by_jupyterlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The way in which scripts/lab.py points JupyterLab at labconfig/ works, so no pop-up about news appears."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_CONFIG_DIR", str(tmp_path))
    from jupyterlab_server.settings_utils import _get_overrides

    overrides, error = _get_overrides(str(tmp_path))
    assert not error
    assert overrides == json.loads((ROOT / "labconfig" / "default_setting_overrides.json").read_text())
    assert overrides["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_notebooks_with_widget_state_or_unannounced_errors_are_refused(tmp_path: Path) -> None:
    """The hook's program finds planted faults, and lets a clean notebook through."""
    error = {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}
    cell = {"cell_type": "code", "metadata": {}, "source": "", "execution_count": 1, "outputs": [error]}
    announced = {**cell, "metadata": {"tags": ["raises-exception"]}}
    books = {
        "clean": {"metadata": {}, "cells": [announced]},
        "state": {"metadata": {"widgets": {"x": 1}}, "cells": []},
        "error": {"metadata": {}, "cells": [cell]},
        "large": {"metadata": {"x": "y" * 400_000}, "cells": []},
    }
    verdicts = {}
    for name, book in books.items():
        path = tmp_path / f"{name}.ipynb"
        path.write_text(json.dumps(book))
        done = subprocess.run([sys.executable, ROOT / "scripts" / "check_notebooks.py", path], capture_output=True, text=True)
        verdicts[name] = (done.returncode, bool(done.stdout))
    assert verdicts == {"clean": (0, False), "state": (1, True), "error": (1, True), "large": (1, True)}


# ---- what files may contain -----------------------------------------------------------------------------------------


def test_no_file_names_a_package_index_or_a_folder_of_one_machine() -> None:
    hosts = ["pypi" + ".org", "files.python" + "hosted", "npm" + "js.org", "deb." + "debian.org"]
    places = ["/" + name + "/" for name in ("work", "root", "tmp/brief")]
    words = re.compile("|".join(map(re.escape, hosts + places)))
    found = []
    for path in tracked_files():
        hit = words.search(path.read_text(errors="replace"))
        if hit:
            found.append(f"{path.relative_to(ROOT)}: {hit.group(0)}")
    assert found == []


def imports(path: Path) -> set[str]:
    """Return the top-level names of all packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_only_the_connection_module_imports_pika() -> None:
    users = {path.relative_to(ROOT).as_posix() for path in (ROOT / "chatlib").rglob("*.py") if "pika" in imports(path)}
    assert users <= {"chatlib/connection.py"}


def test_modules_are_small() -> None:
    """A module is one noun; 350 lines are room enough for one."""
    sizes = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in (ROOT / "chatlib").rglob("*.py")}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > 350} == {}


def test_tests_wait_for_facts_and_do_not_sleep() -> None:
    pattern = re.compile(r"\btime\.sleep" + r"\(")
    sleepers = [path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py") if pattern.search(path.read_text())]
    assert sleepers == []


def test_importing_the_package_loads_none_of_the_heavy_ones() -> None:
    program = "import sys, chatlib; print(*({'pandas', 'plotly', 'ipywidgets', 'docker', 'numpy', 'IPython'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# ---- the tools of the tests themselves ------------------------------------------------------------------------------


def test_wait_until_returns_the_value_that_came() -> None:
    values = iter([0, None, "there"])
    assert wait_until(lambda: next(values), timeout=5) == "there"


def test_wait_until_fails_with_the_last_value() -> None:
    with pytest.raises(AssertionError, match=r"^not within 0\.05 s: an empty queue; last seen: \[\]$"):
        wait_until(list, timeout=0.05, what="an empty queue")


def test_wait_until_lets_errors_through_that_are_not_a_no() -> None:
    def broken() -> bool:
        raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        wait_until(broken, timeout=5)


@pytest.mark.parametrize(("ci", "outcome"), [("true", {"failed": 1, "errors": 1}), ("", {"skipped": 2})])
def test_in_ci_a_skip_is_a_failure(ci: str, outcome: dict[str, int], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to skip; where somebody works, a missing component is allowed."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest("from tests.conftest import pytest_make_collect_report, pytest_runtest_makereport")
    pytester.makepyfile("import pytest\n@pytest.mark.skip\ndef test_a(): pass\ndef test_b(): pytest.skip('no broker')")
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(**outcome)


def test_a_test_belongs_to_the_tier_of_its_folder() -> None:
    assert tier_of(ROOT / "tests" / "faults" / "test_x.py") == "faults"
    assert tier_of(ROOT / "tests" / "unit" / "deep" / "test_x.py") == "unit"
    assert tier_of(ROOT / "notebooks" / "01-x.ipynb") == "notebooks"
    assert tier_of(ROOT / "tests" / "conftest.py") is None
