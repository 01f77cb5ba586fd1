"""CLIP: an image finds its text among the batch's texts, and a text its image."""

import kontrast as kt
from kontrast.plugins.objectives import InfoNCE

__all__ = ["clip"]


def clip(
    image_encoder: kt.Encoder,
    text_encoder: kt.Encoder,
    *,
    projection_size: int = 512,
    temperature: float = 0.07,
    smallest_temperature: float = 0.01,
) -> kt.Method:
    """Return CLIP on an image and a text encoder.

    Two encoders, a linear projection each, and for both directions the cross entropy of a pair against the other pairs
    of the batch (of all processes), on the cosine divided by a learned temperature. A pair is told by its id: views
    must name their tower (`image`, `text`) and carry the pair's id.

    Args:
        image_encoder: for views of the tower `image`.
        text_encoder: for views of the tower `text`.
        projection_size: of the shared embedding.
        temperature: at the start, dimensionless.
        smallest_temperature: below which it is not learned; 0.01 holds the scale at 100.

    Source:
        Radford et al. 2021, arXiv:2103.00020, figure 3 and section 2.5.
    """
    encoders = {"image": image_encoder, "text": text_encoder}
    return kt.Method(
        encoder=encoders,
        projector={
            name: kt.mlp(encoder.representation_size, projection_size, last_bias=False)
            for name, encoder in encoders.items()
        },
        sampler=kt.InBatch("cross"),
        objective=InfoNCE(temperature=1.0),
        similarity=kt.LearnedTemperature(kt.Cosine(), temperature, smallest_temperature),
    )
