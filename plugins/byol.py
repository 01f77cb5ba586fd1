"""BYOL: predict a momentum target's projection of the other view; no negatives."""

import kontrast as kt
from kontrast.plugins.objectives import CosineRegression

__all__ = ["byol"]


def byol(
    encoder: kt.Encoder, *, hidden_size: int = 4096, projection_size: int = 256, momentum: float = 0.996
) -> kt.Method:
    """Return BYOL on an encoder.

    The online network is encoder f, projector g and predictor q; the target is a momentum copy of f and g. From each
    view, q(g(f(x))) predicts the target's projection of the other view.

    Args:
        encoder: f, whose output is the representation.
        hidden_size: of projector and predictor, 4096 in the paper.
        projection_size: of the embedding, 256 in the paper.
        momentum: share of the old target kept at the start; it rises to 1 by a half cosine. 0.996 in the paper.

    Source:
        Grill et al. 2020, arXiv:2006.07733, section 3.
    """
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(encoder.representation_size, hidden_size, projection_size),
        predictor=kt.mlp(projection_size, hidden_size, projection_size),
        target=kt.Momentum(momentum, final=1.0),
        sampler=kt.Positives(),
        objective=CosineRegression(),
    )
