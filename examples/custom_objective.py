"""An objective of one's own, trained: row statistics in, sum and count out.

Memory, several processes and precision are the core's business; gradients are exact under torchrun as they are here.
"""

import torch

import kontrast as kt
from kontrast.adapters import vision


class DecoupledInfoNCE(kt.Objective):
    """InfoNCE whose denominator leaves the positive out (Yeh et al. 2021, arXiv:2110.06848)."""

    needs = kt.Needs(negatives=True)

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, pairs: kt.Pairs) -> kt.Loss:
        """Return -s_ip / t + log sum over negatives of exp(s_in / t), over anchors that have both."""
        rows = kt.row_statistics(pairs, temperature=self.temperature)
        both = (rows.positive_count > 0) & (rows.negative_count > 0)  # a log of nothing is no loss
        return kt.Loss.over_rows(rows.negative_logsumexp - rows.positive_mean, both)


def main() -> None:
    """Train on the digits and print nearest-neighbour accuracy before and after."""
    data = vision.load("digits")
    torch.manual_seed(0)
    method = kt.Method(
        encoder=vision.SmallCNN(in_channels=1, width=8),
        projector=kt.mlp(32, 128, 64),
        sampler=kt.InBatch(),
        objective=DecoupledInfoNCE(temperature=0.2),
    )
    run = kt.Run(
        method, data.train, augmenter=vision.AffineViews(), epochs=10, batch_size=128, optimizer=kt.AdamW(2e-3)
    )
    before = kt.evaluate.knn(run.encoder, data.train, data.test)
    run.fit()
    after = kt.evaluate.knn(run.encoder, data.train, data.test)
    if kt.rank() == 0:
        print(f"kNN accuracy, untrained {before:.1f}, trained {after:.1f}")


if __name__ == "__main__":
    main()
