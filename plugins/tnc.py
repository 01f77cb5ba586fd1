"""TNC: a window is like those in its neighbourhood, and mostly unlike those far away."""

import kontrast as kt
from kontrast.plugins.objectives import PositiveUnlabelled
from kontrast.plugins.samplers import Neighborhood

__all__ = ["tnc"]


def tnc(encoder: kt.Encoder, *, positive_prior: float = 0.05) -> kt.Method:
    """Return temporal neighbourhood coding on an encoder of windows.

    A neighbourhood is the stretch around a window over which the series is stationary. A discriminator, a small network
    on two representations, tells windows of one neighbourhood from windows far apart; since signals come back, a far
    window counts as a neighbour with the weight `positive_prior`.

    Take the augmenter `neighbor-windows`.

    Args:
        encoder: of windows.
        positive_prior: w of the paper, in [0, 1).

    Source:
        Tonekaboni et al. 2021, arXiv:2106.00750, section 3. Differs from it: the discriminator has no dropout, since a
        score must be the same when it is taken again in the backward pass.
    """
    return kt.Method(
        encoder=encoder,
        sampler=Neighborhood(),
        objective=PositiveUnlabelled(positive_prior),
        similarity=kt.MLP(encoder.representation_size, hidden_size=4 * encoder.representation_size),
    )
