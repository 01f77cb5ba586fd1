"""LightGCN: embeddings of users and items, averaged over their neighbours in the graph.

Shapes: U users, I items, M rows of a view, D embedding size.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast_recsys.graph import Graph, Lookup

__all__ = ["LightGCN"]


class LightGCN(kt.Encoder):
    """The mean of an embedding table and of what `num_layers` rounds of averaging over neighbours make of it.

    Without layers it is matrix factorisation. The representation of a row is its user's. In training it holds the rows
    that a batch looks up small, by a loss of its own: `l2` times the mean over samples of half their squared lengths.

    Args:
        num_users: how many users there are, U.
        num_items: how many items, I.
        size: of an embedding, D.
        num_layers: rounds, >= 0.
        l2: weight of the squared lengths, >= 0.

    Raises:
        InvalidValueError: if a number breaks its rule.

    Source:
        He et al. 2020, arXiv:2002.02126, eq. 3 to 8, and the L2 term of eq. 15, which its code takes of the rows before
        any layer. Embeddings start as in SGL's code (Xavier, uniform).
    """

    def __init__(self, num_users: int, num_items: int, size: int = 64, num_layers: int = 3, l2: float = 1e-4) -> None:
        super().__init__()
        for name, value, least in (
            ("num_users", num_users, 1),
            ("num_items", num_items, 1),
            ("size", size, 1),
            ("num_layers", num_layers, 0),
            ("l2", l2, 0),
        ):
            if not value >= least:
                raise kt.InvalidValueError(f"`{name}` must be >= {least}, got {value!r}")
        self.representation_size = size
        self.num_layers = num_layers
        self.l2 = l2
        self.users = nn.Embedding(num_users, size)
        self.items = nn.Embedding(num_items, size)
        for table in (self.users, self.items):
            nn.init.xavier_uniform_(table.weight)

    def forward(self, inputs: Lookup) -> Tensor:
        """Return the users' embeddings [M, D]."""
        return self.embed(inputs.graph)[0][inputs.users]

    def embed(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """Return the embeddings of all users [U, D] and all items [I, D].

        Raises:
            IncompatibleError: if the graph has other numbers of users or items.
        """
        counts = self.users.num_embeddings, self.items.num_embeddings
        if (graph.num_users, graph.num_items) != counts:
            raise kt.IncompatibleError(
                f"this LightGCN knows {counts[0]} users and {counts[1]} items, and the graph has {graph.num_users} and "
                f"{graph.num_items}; make it of the data set's own numbers (Splits.about)"
            )
        layer = torch.cat([self.users.weight, self.items.weight])
        with torch.autocast(layer.device.type, enabled=False):  # sparse products have no half precision everywhere
            adjacency = graph.adjacency.to(layer.dtype)
            total = layer
            for _ in range(self.num_layers):
                layer = torch.sparse.mm(adjacency, layer)
                total = total + layer
        users, items = (total / (self.num_layers + 1)).split(counts)
        return users, items

    def encode(self, view: kt.View, copies: Tensor) -> kt.Encoded:
        """Return the users as rows, and as streams what else a sampler of this domain reads of one propagation.

        Streams, whose ids are numbers of users or items instead of samples: `positives` and, where they were drawn,
        `negatives` [M, D]; `all-users` [U, D] and `all-items` [I, D], the same on every process.

        Args:
            view: M rows.
            copies: the key of each, int64 [M].
        """
        lookup: Lookup = view.inputs
        users, items = self.embed(lookup.graph)
        chosen = {"positives": lookup.positives}
        if lookup.negatives is not None:
            chosen["negatives"] = lookup.negatives
        streams = {
            name: kt.Encoded(items[ids], ids, kt.key(copies, torch.full_like(copies, number)))
            for number, (name, ids) in enumerate(chosen.items(), start=1)
        }
        for name, rows in (("all-users", users), ("all-items", items)):
            ids = torch.arange(len(rows), device=rows.device)
            streams[name] = kt.Encoded(rows, ids, torch.full_like(ids, -1), replicated=True)
        auxiliary = None
        if self.l2:
            initial = [self.users(lookup.users), *(self.items(ids) for ids in chosen.values())]
            lengths = torch.stack([rows.square().sum(1) / 2 for rows in initial]).sum(0)
            auxiliary = kt.Loss.over_rows(lengths, name="lengths", weight=self.l2)
        encoded = kt.Encoded(users[lookup.users], view.ids, copies, view.labels, view.groups)
        return replace(encoded, streams=streams, auxiliary=auxiliary)
