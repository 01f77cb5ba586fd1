"""TS2Vec's augmentation: two crops that share a stretch, and hidden time steps.

Shapes: B series, T time steps, C channels.
"""

from dataclasses import replace

import torch
from torch import Tensor

import kontrast as kt

__all__ = ["OverlappingCrops"]

LENGTHS, SHIFT, HIDDEN = 41, 42, 43  # streams of random numbers


class OverlappingCrops(kt.Augmenter):
    """Two crops of every series that overlap; `coords` say which time step each step was.

    The lengths are drawn once for a batch, the same on every process, so that a crop is one tensor; where it lies is
    drawn for each series, within what it holds. The first crop ends where the shared stretch does, the second begins
    where it begins.

    Args:
        min_overlap: least length of the shared stretch, in time steps, >= 2.
        mask_ratio: chance that a time step is hidden (`View.masked`), in [0, 1); the encoder replaces it by zero.

    Raises:
        InvalidValueError: if a parameter is out of range, or series are shorter than the overlap.

    Source:
        Yue et al. 2022, arXiv:2106.10466, section 3.2: random cropping and timestamp masking, with its code's ranges.
    """

    def __init__(self, min_overlap: int = 2, mask_ratio: float = 0.5) -> None:
        super().__init__()
        if min_overlap < 2:
            raise kt.InvalidValueError(f"`min_overlap` must be >= 2, got {min_overlap!r}")
        if not 0 <= mask_ratio < 1:
            raise kt.InvalidValueError(f"`mask_ratio` must be in [0, 1), got {mask_ratio!r}")
        self.min_overlap, self.mask_ratio = min_overlap, mask_ratio

    def forward(self, batch: kt.Batch, draws: kt.Draws) -> list[kt.View]:
        """Return the two crops of series [B, T, C]."""
        series: Tensor = batch.inputs
        steps = series.shape[1]
        if steps < self.min_overlap:
            raise kt.InvalidValueError(
                f"series must have at least {self.min_overlap} time steps, as `min_overlap` says, got {steps}; take "
                "longer series, or a smaller `min_overlap` where it is above 2"
            )
        generator = draws.generator(stream=LENGTHS, each_step=True)

        def between(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        shared = between(self.min_overlap, steps)
        left = between(0, steps - shared)
        right = left + shared
        begin, end = between(0, left), between(right, steps)
        # Both crops are shifted for each series: to anywhere that they fit, and where a series has ended before, so
        # that it still holds the shared stretch; what a crop then reads beyond it is missing.
        there = ~series.isnan().any(2)
        length = (there * torch.arange(1, steps + 1, device=series.device)).amax(1)
        high = (length - shared).clamp(min=0, max=steps - (end - left))
        low = high.clamp(max=left - begin)
        number = draws.uniform(batch.ids, 1, stream=SHIFT)[:, 0].double()
        shift = low + (number * (high - low + 1)).long() - left
        return [
            self._crop(batch, draws, view, shift, first, last)
            for view, (first, last) in enumerate(((begin, right), (left, end)))
        ]

    def _crop(self, batch: kt.Batch, draws: kt.Draws, view: int, shift: Tensor, first: int, last: int) -> kt.View:
        coords = shift[:, None] + torch.arange(first, last, device=shift.device)
        rows = torch.arange(len(coords), device=coords.device)[:, None]
        steps = batch.inputs.shape[1]
        crop = batch.inputs[rows, coords.clamp(0, steps - 1)]
        crop = crop.masked_fill(((coords < 0) | (coords >= steps))[:, :, None], torch.nan)
        masked = None
        if self.mask_ratio:
            masked = draws.uniform(batch.ids, last - first, view=view, stream=HIDDEN) < self.mask_ratio
        return replace(kt.View.of(batch, crop), coords=coords, masked=masked)
