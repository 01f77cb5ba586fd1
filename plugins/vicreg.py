"""VICReg: views agree, dimensions vary, and no two of them say the same; no negatives, no second network."""

import kontrast as kt
from kontrast.plugins.objectives import VICReg

__all__ = ["vicreg"]


def vicreg(
    encoder: kt.Encoder,
    *,
    projection_size: int = 8192,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> kt.Method:
    """Return VICReg on an encoder.

    Encoder f and expander h embed both views; the loss is on the batch of embeddings, which are not normalised.

    Args:
        encoder: f, whose output is the representation.
        projection_size: width of all three layers of the expander, 8192 in the paper; 2048 on CIFAR-10.
        invariance: weight of the squared error between views.
        variance: weight of the hinge on each dimension's standard deviation.
        covariance: weight of the squared covariances.

    Source:
        Bardes et al. 2022, arXiv:2105.04906, section 4.
    """
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(encoder.representation_size, *[projection_size] * 3, last_bias=False),
        sampler=kt.Positives("forward"),
        objective=VICReg(invariance, variance, covariance),
    )
