"""A pair sampler of one's own, trained: which of a row's integers says same, positive, comparable.

The digits are given writers (made up: thirteen, in turn), and negatives come from the anchor's own writer alone.
"""

from collections.abc import Sequence

import torch

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.objectives import InfoNCE


class SameWriterNegatives(kt.PairSampler):
    """In-batch pairs whose negatives come from the anchor's own group."""

    def pairs(self, encoded: Sequence[kt.Encoded]) -> list[kt.Pairs]:
        """Return one Pairs: rows of this process against those of all, of one group."""
        rows = kt.stack(encoded)
        return [kt.Pairs.between(rows, kt.across_ranks(rows), match="ids", scope="groups")]


def main() -> None:
    """Train on the digits and print nearest-neighbour accuracy before and after."""
    data = vision.load("digits")
    train = kt.ArrayData(data.train.inputs, data.train.labels, groups=torch.arange(len(data.train)) % 13)
    torch.manual_seed(0)
    method = kt.Method(
        encoder=vision.SmallCNN(in_channels=1, width=8),
        projector=kt.mlp(32, 128, 64),
        sampler=SameWriterNegatives(),
        objective=InfoNCE(temperature=0.2),
    )
    run = kt.Run(method, train, augmenter=vision.AffineViews(), epochs=10, batch_size=128, optimizer=kt.AdamW(2e-3))
    before = kt.evaluate.knn(run.encoder, data.train, data.test)
    run.fit()
    after = kt.evaluate.knn(run.encoder, data.train, data.test)
    if kt.rank() == 0:
        print(f"kNN accuracy, untrained {before:.1f}, trained {after:.1f}")


if __name__ == "__main__":
    main()
