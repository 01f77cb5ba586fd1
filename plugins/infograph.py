"""InfoGraph: a graph knows its own nodes among the nodes of other graphs."""

from torch import Tensor, nn

import kontrast as kt
from kontrast.plugins.objectives import JensenShannon
from kontrast.plugins.samplers import LocalGlobal

__all__ = ["infograph"]


def infograph(encoder: kt.Encoder) -> kt.Method:
    """Return InfoGraph on a graph encoder.

    A graph encoder gives node representations h and their read-out H; phi(h) and psi(H), two small networks, are
    compared by the dot product. Every node of every graph is a positive of its own graph and a negative of all others,
    by the Jensen-Shannon estimator of mutual information. Graphs are not augmented: take the augmenter `identity`
    with one view.

    Args:
        encoder: whose output is the representation, and which gives one embedding per node too.

    Source:
        Sun et al. 2020, arXiv:1908.01000, section 3.2. The prior matching of its code is off there by default and
        absent here.
    """
    size = encoder.representation_size
    return kt.Method(
        encoder=encoder,
        projector=_FeedForward(size),
        dense_projector=_FeedForward(size),
        sampler=LocalGlobal(),
        objective=JensenShannon(),
        similarity=kt.Dot(),
    )


class _FeedForward(nn.Module):
    """Three layers with a linear shortcut, as wide as their input."""

    def __init__(self, size: int) -> None:
        super().__init__()
        layers = [part for _ in range(3) for part in (nn.Linear(size, size), nn.ReLU())]
        self.block = nn.Sequential(*layers)
        self.shortcut = nn.Linear(size, size)

    def forward(self, rows: Tensor) -> Tensor:
        """Return rows [n, D] of the same size."""
        out: Tensor = self.block(rows) + self.shortcut(rows)
        return out
