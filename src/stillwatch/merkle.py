"""The Merkle tree of RFC 6962 over lines that are only ever added, kept as its frontier.

The frontier holds the roots of the full subtrees, largest first, one for each bit of the size that is set: log2(size) hashes
are all that adding a line and giving the root need. Leaves and nodes are hashed with different prefixes, so that no node can
be passed off as a line.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import reduce

EMPTY = hashlib.sha256().digest()
"""The root of no lines."""


def leaf_hash(line: bytes) -> bytes:
    """SHA-256 of a line as a leaf (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256 of two subtrees as a node (RFC 6962, 2.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(slots=True)
class Tree:
    """A tree of ``size`` lines, by its frontier."""

    size: int = 0
    frontier: list[bytes] = field(default_factory=list)

    def add(self, line: bytes) -> None:
        """One line more, at the end."""
        node, bits = leaf_hash(line), self.size
        while bits & 1:
            node, bits = node_hash(self.frontier.pop(), node), bits >> 1
        self.frontier.append(node)
        self.size += 1

    def root(self) -> bytes:
        """The hash that stands for all lines and their order, 32 bytes."""
        if not self.frontier:
            return EMPTY
        return reduce(lambda right, left: node_hash(left, right), reversed(self.frontier))

    def copy(self) -> Tree:
        """Another tree of the same lines, to add to without touching this one."""
        return Tree(self.size, list(self.frontier))
