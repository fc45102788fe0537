"""What the nodes of a local cluster share: Erlang's port mapper (epmd), by which they find each other, and their folder."""

from __future__ import annotations

import secrets
from pathlib import Path

from chatlib.brokers.identity import Identity
from chatlib.brokers.installation import Installation
from chatlib.brokers.lease import Lease
from chatlib.brokers.node import environment, launch_mapper
from chatlib.brokers.ports import Ports, require_free

__all__ = ["Mapper"]


class Mapper:
    """One port mapper on the lease of a cluster's folder: it outlives any of the nodes, and goes when their owner goes.

    temporary: the folder goes with it.
    """

    def __init__(self, folder: Path, *, temporary: bool) -> None:
        self._folder = folder
        # "z": the registry is swept in the order of tags, so that a dead owner's nodes (hexadecimal) go before their folder does
        self._lease = Lease(f"z{secrets.token_hex(8)}", folder, temporary=temporary, detached=False)

    @property
    def ended(self) -> bool:
        """Whether this process has nothing to do with it any more: it was ended, or its owner is our parent."""
        return self._lease.ended

    def start(self, identity: Identity, installation: Installation) -> None:
        """Bring it up for the node `identity` and its peers, if it is not there. Raises `BrokerStartFailed`, OSError."""
        process = self._lease.processes.get("epmd")
        if process is not None and process.alive:
            return
        self._lease.clear()
        require_free(Ports(epmd=identity.ports.epmd))
        with (self._folder / "epmd.log").open("ab") as log:
            launch_mapper(identity.ports.epmd, installation, self._lease, environment(identity, installation), self._folder, log)

    def stop(self) -> None:
        """End the process; nothing else."""
        self._lease.clear()

    def end(self) -> None:
        """End the process and give the folder up, which removes a temporary one. Idempotent."""
        self._lease.end()
