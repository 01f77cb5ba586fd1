"""The user-item graph, and what a tower reads: rows of it to look up.

Shapes: U users, I items, E edges, M rows of a view.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import kontrast as kt

__all__ = ["Graph", "Lookup"]


@dataclass(frozen=True)
class Graph:
    """Who chose what: an undirected graph between users and items, each edge once.

    Args:
        num_users: U.
        num_items: I.
        users: the edges' users, int64 [E] in 0..U-1.
        items: the edges' items, int64 [E] in 0..I-1.

    Raises:
        InvalidValueError: if a tensor is not of that form.
    """

    num_users: int
    num_items: int
    users: Tensor
    items: Tensor

    def __post_init__(self) -> None:
        for name, nodes, count in (("users", self.users, self.num_users), ("items", self.items, self.num_items)):
            if nodes.ndim != 1 or nodes.dtype != torch.int64 or len(nodes) != len(self.users):
                raise kt.InvalidValueError(
                    f"`{name}` must be int64 [{len(self.users)}], one per edge, got {nodes.dtype} {list(nodes.shape)}"
                )
            if len(nodes) and not 0 <= int(nodes.min()) <= int(nodes.max()) < count:
                raise kt.InvalidValueError(
                    f"`{name}` must lie in 0..{count - 1}, got {int(nodes.min())} to {int(nodes.max())}"
                )

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied and pickled without what was computed from it.
        return Graph, (self.num_users, self.num_items, self.users, self.items)

    @cached_property
    def adjacency(self) -> Tensor:
        """D^-1/2 A D^-1/2 over users, then items: sparse float32 [U + I, U + I]."""
        nodes = self.num_users + self.num_items
        ends = torch.stack([self.users, self.items + self.num_users])
        places = torch.cat([ends, ends.flip(0)], dim=1)
        degrees = torch.bincount(places[0], minlength=nodes)
        scale = degrees.clamp(min=1).to(torch.float32).rsqrt()
        weights = scale[places[0]] * scale[places[1]]
        return torch.sparse_coo_tensor(places, weights, (nodes, nodes), check_invariants=False).coalesce()

    @cached_property
    def _lacking(self) -> tuple[Tensor, Tensor]:
        """For each user the items before each of its own that it lacks, as sorted keys [E]; and where users begin."""
        edges = (self.users * self.num_items + self.items).sort().values
        users = edges // self.num_items
        begins = torch.searchsorted(users, torch.arange(self.num_users + 1, device=edges.device))
        before = torch.arange(len(edges), device=edges.device) - begins[users]
        return edges - before, begins

    def unchosen(self, users: Tensor, numbers: Tensor) -> Tensor:
        """Return for each user an item that it is not joined to, uniformly, int64 [M].

        Args:
            users: int64 [M].
            numbers: uniform in [0, 1), [M].

        Raises:
            IncompatibleError: if a user is joined to all items.
        """
        keys, begins = self._lacking
        left = self.num_items - (begins[users + 1] - begins[users])
        if len(users) and int(left.min()) < 1:
            full = int(users[left.argmin()])
            raise kt.IncompatibleError(
                f"a negative must be an item that the user did not choose, and user {full} chose all "
                f"{self.num_items}; leave that user out"
            )
        place = torch.minimum((numbers.double() * left).long(), left - 1)  # among those that it lacks
        passed = torch.searchsorted(keys, users * self.num_items + place, right=True) - begins[users]
        return place + passed

    def without(self, dropped: Tensor) -> "Graph":
        """Return the graph without some edges.

        Args:
            dropped: bool [E].
        """
        return replace(self, users=self.users[~dropped], items=self.items[~dropped])

    def to(self, device: torch.device) -> "Graph":
        """Return the graph on a device; the copy is kept, so that what was computed from it is too."""
        if self.users.device == device:
            return self
        if device not in self._copies:
            self._copies[device] = replace(self, users=self.users.to(device), items=self.items.to(device))
        return self._copies[device]

    @cached_property
    def _copies(self) -> dict[torch.device, "Graph"]:
        return {}


@dataclass(frozen=True)
class Lookup:
    """Which nodes of which graph a batch is about.

    Args:
        graph: what is propagated over.
        users: int64 [M].
        positives: the item that each user chose, int64 [M].
        negatives: an item that it did not, int64 [M]; None where none was drawn.
    """

    graph: Graph
    users: Tensor
    positives: Tensor
    negatives: Tensor | None = None

    def to(self, device: torch.device, *, non_blocking: bool = False) -> "Lookup":
        """Return it on a device."""

        def moved(nodes: Tensor) -> Tensor:
            return nodes.to(device, non_blocking=non_blocking)

        negatives = None if self.negatives is None else moved(self.negatives)
        return Lookup(self.graph.to(device), moved(self.users), moved(self.positives), negatives)
