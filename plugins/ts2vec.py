"""TS2Vec: a time step agrees with itself in another context, against other times and other series, at every scale."""

import kontrast as kt
from kontrast.plugins.objectives import NTXent
from kontrast.plugins.samplers import TimePyramid

__all__ = ["ts2vec"]


def ts2vec(encoder: kt.Encoder) -> kt.Method:
    """Return TS2Vec on an encoder of time series.

    Two crops of a series overlap; the representations of the time steps that both hold are compared by their dot
    product, with other times of the series (temporal) and with other series at that time (instance), then pooled by
    the maximum in pairs of steps and compared again, down to one step. What comes out of training has the mean of the
    encoder's weights after every step.

    Take the augmenter `overlapping-crops` and the encoder `dilated-cnn`. On a CPU, train on short series with one
    thread (`OMP_NUM_THREADS=1`): their products are many and small.

    Args:
        encoder: gives one representation per time step; that of a series is its read-out.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 3; the mean of the weights is its code's. Differs from that code:
        series of unequal length begin together, where it centres them; longer ones than 3,000 steps (`max_train_length`
        there) stay whole, `timeseries.windows` cuts them; `kontrast.AdamW` decays no biases, its AdamW decays all.
    """
    return kt.Method(
        encoder=encoder,
        sampler=TimePyramid(),
        objective=NTXent(temperature=1.0),
        similarity=kt.Dot(),
        average=True,
    )
