"""Starting one RabbitMQ node as an ordinary process: its configuration, its environment, its command lines.

Nothing of the system's RabbitMQ is used but the programs: own home and Erlang cookie, own database, own epmd on its own
port, every port bound to loopback. Measured on 2 cores with RabbitMQ 3.10.8: a client can declare 3.7 s after the launch,
3.1 s of it processor time: 0.7 s until it boots, 0.8 s to find its feature flags, 1.5 s to look into all modules for upgrades;
recovery after SIGKILL adds nothing visible. See `chatlib.brokers.home`, without which it is 6.5 s.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from threading import Event
from typing import IO

from chatlib.brokers.home import lay_out, scripts_dir
from chatlib.brokers.identity import Identity
from chatlib.brokers.installation import Installation
from chatlib.brokers.lease import Lease
from chatlib.brokers.ports import LOOPBACK
from chatlib.brokers.process import OurProcess
from chatlib.brokers.readiness import port_open
from chatlib.errors import BrokerStartFailed, BrokerUnavailable

__all__ = ["environment", "launch", "launch_mapper", "run_tool"]

EPMD_DEADLINE = 5.0  # seconds; it listens within milliseconds
RETRIED_AFTER = 5_000
"""Milliseconds until a quorum queue that dead-letters at least once (our retry queues) publishes again what was not confirmed, such as to a
queue or an exchange that was not up yet after a SIGKILL. RabbitMQ's default is 180,000: some of 1,000 retried messages were seen to wait
that long, and on 4.0 one or two of 30 in 2 of 90 kills (retry queues lead before the default exchange is there)."""
KEPT_LOG = 5_000_000  # bytes; a longer log is set aside (one generation) at the next start
# Of the nodes of a cluster. Erlang holds a silent node for dead after 0.75 to 1.25 times TICK_TIME (its default is 60 s); until then
# what needs all nodes, such as declaring, hangs. A busy machine lets a node wait for a second or two, not for seven.
TICK_TIME = 10  # seconds
SUSPECT = 1000  # milliseconds between two looks of the quorum queues' failure detector (RabbitMQ's default: 5000)
LARGEST_WAL = 64_000_000  # bytes of a node's memory for the quorum queues' log (RabbitMQ's default: 512 MiB), for each of several nodes
FLAGS = (
    "classic_mirrored_queue_version,implicit_default_bindings,maintenance_mode_status,quorum_queue,stream_queue,user_limits,"
    "virtual_host_metadata"
)
"""The feature flags of RabbitMQ 3.10 itself, for the nodes of a cluster; without the two of its management plugin. A node that serves again
after a pause asks the others to take over its flags; one that is starting knows none of a plugin yet, fails at it, and the node
that asked never serves again ("incompatible_feature_flags": on a busy machine both times that two of three nodes were started at
once, on a quiet one 0 of 10; without the two flags 0 of 14 on a busy one). Later releases have `rabbit_ff_controller` for it."""
INHERITED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR", "TZ", "CONDA_PREFIX")


def launch(identity: Identity, installation: Installation, lease: Lease, lock: int) -> OurProcess:
    """Start epmd (a cluster has started its own) and the node, put them on the lease, and return the node at once (it is not ready yet).

    lock: an open, locked descriptor that the node inherits and thereby holds for its life.
    Raises OSError where files cannot be written, `BrokerStartFailed` where epmd does not come up.
    """
    _write_files(identity)
    lay_out(identity, installation)
    env = environment(identity, installation)
    folder = identity.node_folder
    if identity.log_file.exists() and identity.log_file.stat().st_size > KEPT_LOG:
        identity.log_file.replace(identity.log_file.with_suffix(".log.1"))
    with identity.log_file.open("ab") as log:
        if not identity.peers:
            launch_mapper(identity.ports.epmd, installation, lease, env, folder, log)
        # -config: Erlang's own way to configure, 0.5 s faster than rabbitmq.conf, for which RabbitMQ compiles all schemas
        node = OurProcess.start(
            [str(installation.server), "-config", str(folder / "node"), "-chatlib", lease.tag],
            lease.tag, program=installation.server, env=env, cwd=folder, output=log, keep=[lock],
        )  # fmt: skip
        lease.add("vm", node)
    return node


def launch_mapper(port: int, installation: Installation, lease: Lease, env: Mapping[str, str], folder: Path, log: IO[bytes]) -> OurProcess:
    """Start epmd and put it on the lease; returns when it listens. Raises `BrokerStartFailed` if it does not."""
    mapper = OurProcess.start(  # its first argument is a name of our choice: the tag, since it knows no free options
        [f"chatlib-epmd-{lease.tag}", "-port", str(port), "-address", LOOPBACK],
        lease.tag, program=installation.epmd, env=env, cwd=folder, output=log,
    )  # fmt: skip
    lease.add("epmd", mapper)
    _await_epmd(mapper, port)
    return mapper


def run_tool(identity: Identity, installation: Installation, name: str, *args: str, timeout: float) -> str:
    """Run a RabbitMQ tool (`rabbitmqctl`, `rabbitmq-diagnostics`) against this node; return what it printed.

    Raises `BrokerUnavailable` with its output if it fails or takes longer than `timeout` seconds.
    """
    # A tool that finds no epmd, because the node has just died, would start one that nobody stops, on the node's own port
    env = environment(identity, installation) | {"ERL_ZFLAGS": "-start_epmd false"}
    command = [str(installation.tool(name)), "-q", "-n", identity.node, *args]
    try:
        done = subprocess.run(command, env=env, cwd=identity.node_folder, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailable(f"{name} {' '.join(args)}: no answer within {timeout:g} s") from error
    if done.returncode:
        raise BrokerUnavailable(f"{name} {' '.join(args)} failed ({done.returncode}): {(done.stderr or done.stdout).strip()}")
    return done.stdout


def _write_files(identity: Identity) -> None:
    folder, ports = identity.node_folder, identity.ports
    folder.mkdir(exist_ok=True, mode=0o700)
    _private(folder / ".erlang.cookie", identity.cookie, mode=0o400)
    _private(folder / "enabled_plugins", f"[{','.join(identity.plugins)}].\n")
    kernel = cluster = others = ""
    if identity.peers:
        names = ", ".join(f"'{name}'" for name in identity.peers)
        kernel = f", {{net_ticktime, {TICK_TIME}}}"
        cluster = f"{{cluster_nodes, {{[{names}], disc}}}}, {{cluster_partition_handling, pause_minority}},\n           "
        others = f"\n {{aten, [{{poll_interval, {SUSPECT}}}]}},\n {{ra, [{{wal_max_size_bytes, {LARGEST_WAL}}}]}},"
    # dead_letter_worker_publisher_confirm_timeout: see RETRIED_AFTER.
    # collect_statistics_interval and sample_retention_policies: management's numbers are a second old at most; the first alone leaves
    # them 5 s old (measured), since what is collected becomes visible at the finest interval that is kept. 4.x calls them deprecated
    # and may want a permission for them one day (3.10 does not know that key and ignores it). The password is safe
    # inside <<"...">>: it is ours, of letters, digits, "-" and "_".
    _private(
        folder / "node.config",
        f"""[
 {{kernel, [{{inet_dist_use_interface, {{127,0,0,1}}}}{kernel}]}},
 {{rabbit, [{cluster}{{default_user, <<"{identity.user}">>}}, {{default_pass, <<"{identity.password}">>}},
           {{default_user_tags, [administrator]}}, {{collect_statistics_interval, 1000}},
           {{dead_letter_worker_publisher_confirm_timeout, {RETRIED_AFTER}}},
           {{permit_deprecated_features, #{{management_metrics_collection => true}}}}]}},{others}
 {{rabbitmq_management, [{{tcp_config, [{{port, {ports.management}}}, {{ip, "{LOOPBACK}"}}]}},
                       {{sample_retention_policies, [{{global, [{{605, 1}}, {{3660, 60}}, {{29400, 600}}, {{86400, 1800}}]}},
                                                   {{basic, [{{605, 1}}, {{3600, 60}}]}}, {{detailed, [{{605, 1}}]}}]}}]}}
].
""",
    )
    extra = folder / "rabbitmq.conf"
    if identity.config:
        _private(extra, "\n".join(identity.config) + "\n")
    else:
        extra.unlink(missing_ok=True)


def _private(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file that only its owner may read, new each time (an old one may be read-only)."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as file:
        file.write(text)


def environment(identity: Identity, installation: Installation) -> dict[str, str]:
    """Return the whole environment of the node: little is inherited, since RabbitMQ reads even CONFIG_FILE or NODENAME."""
    folder, ports, scripts = identity.node_folder, identity.ports, scripts_dir(identity)
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    own = {} if scripts is None else {"RABBITMQ_SCRIPTS_DIR": str(scripts)}
    if identity.peers and installation.version.startswith("3.10."):
        own["RABBITMQ_FEATURE_FLAGS"] = FLAGS
    return (inherited | own) | {
        "PATH": installation.search_path,
        "HOME": str(folder),  # the cookie's place
        "LC_ALL": "C",  # file names are bytes: management breaks on letters beyond Latin-1
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_CRASH_DUMP_SECONDS": "0",  # no dump of a hundred megabytes, and a quick end
        "RABBITMQ_NODENAME": identity.node,
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_NODE_PORT": str(ports.amqp),
        "RABBITMQ_DIST_PORT": str(ports.dist),
        "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_LOGS": "-",  # to stdout, which is our log file
        "RABBITMQ_PID_FILE": str(folder / "node.pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
        "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "no-env.conf"),  # not the system's
        "RABBITMQ_SCHEDULER_BUSY_WAIT_THRESHOLD": "none",  # idle schedulers sleep: the cores are shared
        "RABBITMQ_CTL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "detached": "1",  # the script becomes the node, instead of staying in between and answering signals itself
    }


def _await_epmd(mapper: OurProcess, port: int) -> None:
    """Return when epmd listens: a node that finds none would start one of its own, which nobody stops."""
    deadline, pause = time.monotonic() + EPMD_DEADLINE, Event()
    while mapper.alive and time.monotonic() < deadline:
        if port_open(LOOPBACK, port, 0.5) and not mapper.wait(0.05):  # it ends at once where somebody else listens there
            return
        pause.wait(0.01)
    raise BrokerStartFailed(
        f"Erlang's port mapper (epmd) does not come up on port {port} (exit status {mapper.exit_code}). "
        "If another program took that port just now, start again; or give other ports."
    )
