"""Time steps that are not what the steps before them let expect.

Shapes: T time steps, C channels, D representation size.
"""

import torch
from torch import Tensor

import kontrast as kt
from kontrast.adapters.timeseries.last_steps import as_recording, last_steps

__all__ = ["anomaly_scores"]


def anomaly_scores(
    encoder: kt.Encoder, recording: Tensor, *, context: int = 201, memory: int = 21, batch_size: int = 32
) -> Tensor:
    """Return how much each time step changes what the encoder says of it, beside the steps before it.

    Each step is encoded twice from itself and the steps before it, once as it is and once hidden; the difference is the
    sum of absolute values d_t. The score is ``(d_t - m_t) / m_t``, m_t the mean of d over the `memory` steps before.
    The paper calls a step anomalous where its score passes mean + 4 standard deviations of the training part's.

    Args:
        encoder: gives one representation per time step.
        recording: [T] or [T, C].
        context: steps an encoder sees of the past, the one it speaks of included.
        memory: steps over which the difference is averaged, >= 1; fewer at the beginning.
        batch_size: windows encoded at once; memory does not grow with T beyond the scores.

    Returns:
        float32 [T]; 0 for the first step, and for one that is missing, which the mean passes over.

    Raises:
        InvalidValueError: if a parameter is out of range.
        IncompatibleError: if the encoder gives pooled representations alone.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 4.3, with the mean's length from its code.
    """
    if memory < 1:
        raise kt.InvalidValueError(f"`memory` must be >= 1, got {memory!r}")
    values = as_recording(recording)
    passes = [last_steps(encoder, values, context, hide=hide, batch_size=batch_size) for hide in (False, True)]
    differences = torch.cat([(seen - hidden).abs().sum(1) for seen, hidden in zip(*passes, strict=True)]).double()
    there = ~values.isnan().any(1)
    sums, counts = (torch.nn.functional.pad(part.cumsum(0), (1, 0)) for part in (differences * there, there.double()))
    at = torch.arange(len(values))
    before = (at - memory).clamp(min=0)
    total, count = sums[at] - sums[before], counts[at] - counts[before]
    mean = total / count.clamp(min=1)
    known = there & (mean > 0)
    return torch.where(known, (differences - mean) / torch.where(known, mean, 1.0), 0.0).float()
