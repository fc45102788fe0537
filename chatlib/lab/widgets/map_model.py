"""What a broker has, for a map: read from the management API, and sorted by the part that each thing plays in a chat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from chatlib.errors import ManagementError
from chatlib.management import Management
from chatlib.names import DEAD_LETTERS, unescape, user_of_queue
from chatlib.topology import DEAD, GROUPS, HISTORIES, RECEIPTS, REGISTER, USERS

__all__ = ["SIDES", "Binding", "QueueFacts", "Scene", "Side", "Structure", "label_of", "read_rates", "read_structure", "scene_of"]

BAD_REQUEST: Final = 400
ASKED: Final = "name,type,durable,arguments,state,message_stats.publish_details.rate,message_stats.deliver_get_details.rate"
SIDES: Final = ("receipts", "dead", "wait", "again")
"""What lies beside the way of a message: receipts, dead letters, where retries wait, and where they come back."""


class Binding(NamedTuple):
    """What comes to `source` with `key` goes to `destination`, a queue or (`to_exchange`) an exchange."""

    source: str
    key: str
    destination: str
    to_exchange: bool = False


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """What a queue is. `arguments` as sorted pairs; `rates` (in, out) messages a second as the broker last sampled them do not count
    when two are compared."""

    name: str
    type: str = "classic"
    durable: bool = True
    arguments: tuple[tuple[str, str], ...] = ()
    state: str = ""
    rates: tuple[float, float] = field(default=(0.0, 0.0), compare=False)


@dataclass(frozen=True, slots=True)
class Structure:
    """What exists on a broker at one moment. exchanges: name -> type; consumers: queue -> how many."""

    exchanges: Mapping[str, str] = field(default_factory=dict)
    queues: Mapping[str, QueueFacts] = field(default_factory=dict)
    bindings: tuple[Binding, ...] = ()
    consumers: Mapping[str, int] = field(default_factory=dict)


def read_structure(management: Management) -> Structure:
    """Ask the broker, in four requests. Raises ManagementUnreachable, ManagementError."""
    exchanges = _listed(management, "exchanges", columns="name,type", disable_stats="true")
    queues = _listed(management, "queues", columns=ASKED) or _listed(management, "queues", columns=ASKED, disable_stats="true")
    bindings = _listed(management, "bindings", columns="source,routing_key,destination,destination_type")
    consumers: dict[str, int] = {}
    for each in _listed(management, "consumers", columns="queue.name"):
        queue = each.get("queue", {}).get("name", "")
        consumers[queue] = consumers.get(queue, 0) + 1
    return Structure(
        {each["name"]: str(each.get("type", "")) for each in exchanges if "name" in each},
        {each["name"]: _facts(each) for each in queues if "name" in each},
        tuple(
            sorted(
                Binding(each["source"], each["routing_key"], each["destination"], each.get("destination_type") == "exchange")
                for each in bindings
            )
        ),
        consumers,
    )


def _listed(management: Management, kind: str, **parameters: str) -> list[dict[str, Any]]:
    try:
        answer = management.get(management.in_vhost(kind), **parameters)
    except ManagementError as exc:
        if exc.status == BAD_REQUEST and "disabled" in str(exc):  # "Stats in management UI are disabled on this node"
            return []
        raise
    return [each for each in answer if isinstance(each, dict)] if isinstance(answer, list) else []


def _facts(each: Mapping[str, Any]) -> QueueFacts:
    arguments = each.get("arguments")
    pairs = sorted((str(key), str(value)) for key, value in arguments.items()) if isinstance(arguments, dict) else []
    stats = each.get("message_stats")
    rates = (_rate(stats, "publish_details"), _rate(stats, "deliver_get_details"))
    kind = str(each.get("type") or dict(pairs).get("x-queue-type") or "classic")
    return QueueFacts(each["name"], kind, bool(each.get("durable", True)), tuple(pairs), str(each.get("state") or ""), rates)


def _rate(stats: Any, name: str) -> float:
    try:
        return round(float(stats[name]["rate"]), 1)
    except (KeyError, TypeError, ValueError):
        return 0.0


def read_rates(structure: Structure) -> dict[str, tuple[float, float]]:
    """Messages a second in and out of each queue through which any went."""
    return {name: facts.rates for name, facts in structure.queues.items() if any(facts.rates)}


# ---- the parts that things play --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Side:
    """Something beside the way of a message: exchanges and the queues behind them."""

    exchanges: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scene:
    """Who is on the stage: what is drawn, by its part.

    exchanges: of the main way, chatlib's first. queues: on the main way. hubs: (exchange, key) -> queues, where one key means several
    queues or a group. direct: all other bindings to these queues. between: bindings from exchange to exchange. users: by their inbox.
    """

    structure: Structure = field(default_factory=Structure)
    exchanges: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    hubs: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    direct: tuple[Binding, ...] = ()
    between: tuple[Binding, ...] = ()
    sides: Mapping[str, Side] = field(default_factory=dict)
    users: Mapping[str, str] = field(default_factory=dict)

    def consumers(self, queue: str) -> int:
        """How many consumers `queue` has."""
        return self.structure.consumers.get(queue, 0)

    def bindings_to(self, name: str) -> list[Binding]:
        """Bindings whose destination is the queue `name`; that to the default exchange is left out, every queue has it."""
        return [each for each in self.structure.bindings if each.destination == name and each.source and not each.to_exchange]


def _is_plumbing(exchange: str) -> bool:
    """Whether an exchange carries nothing that a reader wants to see: the broker's own, and chatlib's marks."""
    return exchange in ("", HISTORIES.name) or exchange.startswith(("amq.", "ready.", "retry.settled."))


def _side_of_exchange(name: str) -> str:
    if name in (RECEIPTS.name, DEAD.name):
        return "receipts" if name == RECEIPTS.name else "dead"
    return "wait" if name.startswith("retry.") and name[6:].replace(".", "").isdigit() else ""


def _side_of_queue(name: str) -> str:
    if name == DEAD_LETTERS:
        return "dead"
    kind, _, rest = name.partition(".")
    if not rest or kind not in ("receipts", "retries", "retry"):
        return ""
    return {"receipts": "receipts", "retries": "again", "retry": "wait" if rest.replace(".", "").isdigit() else ""}[kind]


def scene_of(structure: Structure, *, everything: bool = False) -> Scene:
    """Sort what exists by the part that it plays. everything: also the broker's own exchanges and chatlib's marks and register."""
    sides: dict[str, tuple[list[str], list[str]]] = {name: ([], []) for name in SIDES}
    exchanges, queues = [], []
    for name in sorted(structure.exchanges, key=lambda each: (_rank(each), each)):
        if (side := _side_of_exchange(name)) != "":
            sides[side][0].append(name)
        elif everything or not _is_plumbing(name):
            exchanges.append(name)
    for name in sorted(structure.queues):
        if (side := _side_of_queue(name)) != "":
            sides[side][1].append(name)
        elif everything or name != REGISTER:
            queues.append(name)
    shown, drawn = set(exchanges), set(queues)
    targets: dict[tuple[str, str], list[str]] = {}
    between = []
    for each in structure.bindings:
        if each.to_exchange:
            if each.source in shown and each.destination in shown:
                between.append(each)
        elif each.source in shown and each.destination in drawn:
            targets.setdefault((each.source, each.key), []).append(each.destination)
    hubs = {
        (source, key): tuple(names)
        for (source, key), names in targets.items()
        if source == GROUPS.name or (source != USERS.name and key and len(names) > 1)
    }
    direct = [Binding(source, key, name) for (source, key), names in targets.items() if (source, key) not in hubs for name in names]
    return Scene(
        structure,
        tuple(exchanges),
        tuple(queues),
        hubs,
        tuple(direct),
        tuple(between),
        {name: Side(tuple(a), tuple(b)) for name, (a, b) in sides.items() if a or b},
        {name: user for name in queues if name.startswith("inbox.") and (user := user_of_queue(name)) is not None},
    )


def _rank(exchange: str) -> int:
    """Our own first, the default exchange and the broker's own last."""
    if exchange in (USERS.name, GROUPS.name):
        return 0 if exchange == USERS.name else 1
    return 3 if _is_plumbing(exchange) else 2


def label_of(name: str, users: Iterable[str] | Mapping[str, str] = ()) -> str:
    """People's word for a queue or an exchange: an inbox is its user's name, "chat.groups" is "groups"."""
    if name in users:
        return user_of_queue(name) or name
    if name == "":
        return "(default)"
    if name in (USERS.name, GROUPS.name):
        return name.removeprefix("chat.")
    kind, _, rest = name.partition(".")
    return f"history of #{unescape(rest)}" if kind == "history" and rest else unescape(name)
