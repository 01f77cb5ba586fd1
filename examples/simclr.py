"""SimCLR on handwritten digits, offline, in a minute and a half: the encoder learns to see through moves and turns.

The digits (scikit-learn carries them) train a small encoder without their labels. Then training and test digits are
each shifted, scaled and turned at random, once, and nearest neighbours and a linear probe tell the test digits apart:
by raw pixels, by the encoder as it was drawn, and as it was trained. Several seeds at once: `--seeds 0 1 2`. Several
processes: `torchrun --nproc-per-node 2 examples/simclr.py`.
"""

import argparse
import shutil
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import vision
from kontrast.plugins.simclr import simclr

MOVES = vision.AffineViews(shift=0.15, scale=1.3, rotation=25.0, brightness=0.1, contrast=1.3)


def train(seed: int, epochs: int, out: Path) -> dict[str, tuple[float, float]]:
    """Train with one seed; return kNN and linear accuracy in percent, by what embeds the digits."""
    data = vision.load("digits")
    moved_train, moved_test = data.train.augmented(MOVES, seed=1), data.test.augmented(MOVES, seed=2)
    torch.manual_seed(seed)
    encoder = vision.SmallCNN(in_channels=1, width=16)
    method = simclr(encoder, hidden_size=512, projection_size=64, temperature=0.2)

    def embedded(by: torch.nn.Module | None) -> tuple[kt.evaluate.Representations, kt.evaluate.Representations]:
        return kt.evaluate.embed(by, moved_train), kt.evaluate.embed(by, moved_test)

    raw = (kt.evaluate.embed(None, data.train), kt.evaluate.embed(None, data.test))
    unmoved = {"(raw pixels, digits not moved)": (kt.evaluate.knn(raw, k=20), kt.evaluate.linear(raw))}
    stages = {"raw pixels": embedded(None), "untrained encoder": embedded(encoder)}
    run = kt.Run(
        method,
        data.train,
        augmenter=MOVES,
        epochs=epochs,
        batch_size=256,
        optimizer=kt.AdamW(4e-3),
        seed=seed,
        out=out,
    )
    run.fit()
    stages["trained encoder"] = embedded(run.encoder)
    if kt.rank() == 0:
        panels = {name: test.rows for name, (_, test) in stages.items()}
        labels = stages["raw pixels"][1].labels
        assert labels is not None
        kt.embedding_picture(panels, labels, out / "embedding.png")
    moved = {name: (kt.evaluate.knn(pair, k=20), kt.evaluate.linear(pair)) for name, pair in stages.items()}
    return {**unmoved, **moved}


def main() -> None:
    """Train with every seed and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="replaced if it is there")
    options = parser.parse_args()
    kt.join_processes()
    if kt.rank() == 0 and (options.out / "demo.txt").exists():
        shutil.rmtree(options.out)  # an earlier demo, by the mark that it left
    results = [train(seed, options.epochs, options.out / f"seed-{seed}") for seed in options.seeds]
    if kt.rank() != 0:
        return
    lines = [f"{'moved test digits, accuracy %':<32} {'kNN (k=20)':>12} {'linear':>12}"]
    for stage in results[0]:
        numbers = torch.tensor([result[stage] for result in results])
        cells = [
            f"{mean:.1f} +- {spread:.1f}" if len(results) > 1 else f"{mean:.1f}"
            for mean, spread in zip(numbers.mean(0).tolist(), numbers.std(0, correction=0).tolist(), strict=True)
        ]
        lines.append(f"{stage:<32} {cells[0]:>12} {cells[1]:>12}")
    (options.out / "demo.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join([*lines, "", f"picture: {options.out / f'seed-{options.seeds[-1]}' / 'embedding.png'}"]))


if __name__ == "__main__":
    main()
