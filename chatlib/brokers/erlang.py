"""Asking running nodes something in their own language, by a hidden Erlang node that lives for one question.

That takes 0.4 s; rabbitmqctl takes 1.5 s, of processor time too.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence

from chatlib.brokers.identity import Identity
from chatlib.brokers.installation import Installation
from chatlib.brokers.node import environment
from chatlib.errors import BrokerUnavailable

__all__ = ["evaluate", "joined", "split"]

PATIENCE = 30.0  # seconds for one question; a call to a node that gets no processor time is given up after CALL
CALL = 3000  # milliseconds


def evaluate(identity: Identity, installation: Installation, expression: str) -> str:
    """Return what an Erlang expression is worth, printed; the cookie of the node is used. Raises `BrokerUnavailable`."""
    said = 'io:format("~0p", [begin ' + expression + " end]), halt(0)"
    command = [
        str(installation.erl), "-noinput", "-hidden", "-boot", "start_clean", "-sname", f"chatlib-asks-{secrets.token_hex(4)}@localhost",
        "-dist_listen", "false", "-start_epmd", "false", "-kernel", "inet_dist_use_interface", "{127,0,0,1}", "-eval", said,
    ]  # fmt: skip
    env = environment(identity, installation)
    try:
        done = subprocess.run(command, env=env, cwd=identity.node_folder, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailable(f"the nodes did not answer within {PATIENCE:g} s") from error
    if done.returncode:
        raise BrokerUnavailable(f"the nodes could not be asked ({done.returncode}): {(done.stderr or done.stdout).strip()[:500]}")
    return done.stdout


def split(apart: Mapping[str, Sequence[str]]) -> str:
    """Return the expression that cuts each node (its Erlang name) off the others named with it, until `joined`.

    Each node believes in another cookie for the others, so that none gets in at another any more, whoever calls; then the
    connections are closed: all of a node's in one go, those of the smaller side first. Where two nodes lose a third one after the
    other, the first asks the second, hears that the third is well, and "pause_minority" has the first pause until *all* are back
    ("partial partition", rabbit_node_monitor): the majority would be none (seen with 3.10 on a busy machine).
    It is worth a list of the nodes that still see one from which they were cut off: empty, if all went well.
    """
    apart = dict(sorted(apart.items(), key=lambda item: -len(item[1])))
    lines = "; ".join(f"{_atom(node)} -> [{', '.join(map(_atom, others))}]" for node, others in apart.items())
    return f"""
        Apart = fun(N) -> case N of {lines} end end,
        Nodes = [{", ".join(map(_atom, apart))}],
        Call = fun(N, M, F, A) -> rpc:call(N, M, F, A, {CALL}) end,
        [Call(N, erlang, set_cookie, [O, {_atom("apart-" + secrets.token_hex(8))}]) || N <- Nodes, O <- Apart(N), O > N],
        [Call(N, erlang, set_cookie, [O, {_atom("apart-" + secrets.token_hex(8))}]) || N <- Nodes, O <- Apart(N), O < N],
        Cuts = [rpc:async_call(N, lists, foreach, [fun erlang:disconnect_node/1, Apart(N)]) || N <- Nodes],
        [rpc:yield(Cut) || Cut <- Cuts],
        [N || N <- Nodes, case Call(N, erlang, nodes, []) of
            L when is_list(L) -> [O || O <- L, lists:member(O, Apart(N))] =/= [];
            _ -> true
        end]"""


def joined(nodes: Sequence[str]) -> str:
    """Return the expression that undoes every `split` among these nodes; worth a list of those that do not see all the others yet."""
    return f"""
        Nodes = [{", ".join(map(_atom, nodes))}],
        Call = fun(N, M, F, A) -> rpc:call(N, M, F, A, {CALL}) end,
        [Call(N, erlang, set_cookie, [O, erlang:get_cookie()]) || N <- Nodes, O <- Nodes, O =/= N],
        [Call(N, net_kernel, connect_node, [O]) || N <- Nodes, O <- Nodes, O > N],
        [N || N <- Nodes, case Call(N, erlang, nodes, []) of L when is_list(L) -> Nodes -- [N | L] =/= []; _ -> true end]"""


def _atom(name: str) -> str:
    return f"'{name}'"
