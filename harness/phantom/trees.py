"""Branching vessel trees that fill a region of space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Straight branches: `start` and `end` (N, 3) mm, `radius_mm` (N,), the root's first."""

    start: Float64
    end: Float64
    radius_mm: Float64


def grow(
    root: Float64,
    targets: Float64,
    *,
    root_radius_mm: float,
    tip_radius_mm: float,
    directness: float = 0.35,
) -> Tree:
    """Join the `targets`, (N, 3) mm, to the `root` one after the other, nearest to it first.

    A target joins the node for which its own branch plus `directness` times the way back to the
    root is shortest (balancing little wire against short paths, as real trees do). A branch that
    feeds n tips has a radius that grows with n^(1/2.7), after Murray's law.
    """
    order = np.argsort(np.linalg.norm(targets - root, axis=1), kind="stable")
    nodes = np.vstack([root[None], targets[order]])
    count = len(nodes)
    way = np.zeros(count)
    parent = np.zeros(count, dtype=np.int64)
    for i in range(1, count):
        branch = np.linalg.norm(nodes[:i] - nodes[i], axis=1)
        parent[i] = int(np.argmin(branch + directness * way[:i]))
        way[i] = way[parent[i]] + branch[parent[i]]
    tips = np.zeros(count)
    has_child = np.zeros(count, dtype=bool)
    has_child[parent[1:]] = True
    tips[~has_child] = 1.0
    for i in range(count - 1, 0, -1):
        tips[parent[i]] += tips[i]
    share = (tips[1:] / tips[1:].max()) ** (1 / 2.7)
    radius = np.maximum(tip_radius_mm, root_radius_mm * share)
    return Tree(start=nodes[parent[1:]], end=nodes[1:], radius_mm=radius)
