"""Ties to clusters: which accounts belong together at all, before anybody asks why.

Accounts and the values that tie them form a bipartite graph, so a value with n holders costs n edges. Its communities
(Leiden, Traag et al. 2019, on modularity, fixed seed) are *proposals*; ``membership.py`` keeps only the accounts with
reasons of their own, and ``judgement.py`` asks what honest thing would explain each.
"""

from __future__ import annotations

import random

import igraph
import numpy as np
import pyarrow as pa

from stillwatch.evidence import signature

MAX_BITS = 12.0
"""No single tie pulls harder than this, so one freak value cannot glue two communities."""


def resolve(ties: pa.Table, smallest: int = 4, resolution: float = 1.0, seed: int = 7) -> list[np.ndarray]:
    """Communities of accounts in ``ties`` (account, kind, value, bits), largest first; each a sorted array of accounts.

    Accounts of the same value are joined through it. Communities with fewer than ``smallest`` accounts are dropped:
    they cannot become campaigns.
    """
    if not ties.num_rows:
        return []
    account, accounts = dense(ties["account"].to_numpy())
    value, values = dense(pair_key(ties["kind"], ties["value"]))
    # Engines give rows in any order and keys give values any hash; Leiden's answer depends on both. Who holds a value does not.
    rank = np.argsort(np.argsort(signature(account, value), kind="stable"), kind="stable")
    value = rank[value]
    order = np.lexsort((account, value))
    account, value = account[order], value[order]
    bits = np.minimum(ties["bits"].to_numpy()[order], MAX_BITS)
    groups = communities(account, value, bits, len(accounts), len(values), resolution, seed)
    found = (np.sort(accounts[g]) for g in groups if len(g) >= smallest)
    return sorted(found, key=lambda g: (-len(g), g[0]))


def communities(
    account: np.ndarray, value: np.ndarray, bits: np.ndarray, accounts: int, values: int,
    resolution: float = 1.0, seed: int = 7,
) -> list[np.ndarray]:  # fmt: skip
    """Leiden communities of a bipartite graph of dense accounts and values; each an array of account numbers."""
    graph = igraph.Graph(
        n=accounts + values,
        edges=np.column_stack([account, value + accounts]),
        edge_attrs={"weight": bits},
    )
    random.seed(seed)
    igraph.set_random_number_generator(random)
    label = np.asarray(
        graph.community_leiden(
            objective_function="modularity", weights="weight", resolution=resolution, n_iterations=4
        ).membership
    )[:accounts]
    order = np.argsort(label, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(label[order])) + 1)


def dense(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dense numbers of ``values`` and the sorted distinct values they stand for."""
    distinct, number = np.unique(values, return_inverse=True)
    return number, distinct


def pair_key(kind: pa.ChunkedArray, value: pa.ChunkedArray) -> np.ndarray:
    """One number for each distinct (kind, value)."""
    code = kind.combine_chunks().dictionary_encode()
    if isinstance(code, pa.ChunkedArray):
        code = code.combine_chunks()
    number, _ = dense(value.to_numpy())
    return number * 64 + code.indices.to_numpy()
