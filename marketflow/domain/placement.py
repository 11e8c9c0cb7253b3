"""Which node of a cluster should have which exchange.

Every node computes the same placement from the same names, so none of them has to lead. It is rendezvous
hashing (Thaler and Ravishankar, 1998): each pair of an exchange and a node has a score, and an exchange
belongs to the node with the greatest. To that comes a limit for each node, so that they share evenly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from hashlib import blake2b
from itertools import product


def placed(exchanges: Collection[str], nodes: Collection[str]) -> dict[str, str]:
    """The node of each exchange. The numbers that two nodes have differ by one at most.

    The greatest scores are given first, and a node that has its number takes no more. So if a node comes or
    goes, few exchanges move beside those that must. Without nodes nothing is placed.
    """
    if not nodes:
        return {}
    least, more = divmod(len(exchanges), len(nodes))
    found: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    for exchange, node in sorted(product(exchanges, nodes), key=lambda both: score(*both), reverse=True):
        if exchange in found or numbers[node] > least or (numbers[node] == least and not more):
            continue
        # `more` nodes have one exchange more than the others.
        more -= numbers[node] == least
        numbers[node] += 1
        found[exchange] = node
    return found


def ranked(exchange: str, nodes: Collection[str]) -> list[str]:
    """The nodes in the order in which they should take an exchange that nobody takes, without the limit."""
    return sorted(nodes, key=lambda node: score(exchange, node), reverse=True)


def score(exchange: str, node: str) -> tuple[int, str, str]:
    """How well an exchange suits a node. The names make it unique, should two hashes be equal."""
    key = f"{len(exchange)}:{exchange}{node}".encode()
    return int.from_bytes(blake2b(key, digest_size=8).digest()), exchange, node
