"""GraphCL on graphs of your choice, from public parts; without arguments at once, offline, on generated graphs.

    python examples/graphcl.py                                         # BA-2motifs, half a minute
    python examples/graphcl.py --dataset MUTAG --root data             # data/MUTAG: TU files, or powerful-gnns text
    torchrun --nproc-per-node 2 examples/graphcl.py --dataset MUTAG --root data

Real sets: with `--root`, a TU set that is not in the folder is downloaded (https://chrsmrrs.github.io/datasets).
The last line is the accuracy, in percent, of a support vector machine on the frozen representations (10 folds over the
whole set, as the papers have it). The line before it is the same of the encoder as it was drawn, a strong rival here.
"""

import argparse
import sys
from pathlib import Path

import torch

import kontrast as kt
from kontrast.adapters import graph
from kontrast.plugins.objectives import GraphCLContrast


def views(ratio: float) -> graph.GraphViews:
    """Return GraphCL's pair: a graph as it is, and one of four augmentations, drawn for each graph."""
    one_of_four = graph.OneOf(
        graph.NodeDropping(ratio),
        graph.EdgePerturbation(ratio),
        graph.AttributeMasking(ratio),
        graph.Subgraph(keep=0.2),
    )
    return graph.GraphViews(graph.Unchanged(), one_of_four)


def graphcl(in_channels: int) -> kt.Method:
    """Return the method of You et al. 2020: `kontrast.plugins.graphcl` in full view."""
    encoder = graph.GIN(in_channels, hidden_size=32, num_layers=3, readout="sum")
    size = encoder.representation_size
    return kt.Method(
        encoder=encoder,
        projector=kt.mlp(size, size, size, norm="none"),
        sampler=kt.InBatch("forward"),  # from the first view to the second, never back
        objective=GraphCLContrast(temperature=0.2),
        joint_forward=False,
    )


def main() -> None:
    """Train, judge, and draw a picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="ba2motifs", help="a name under --root, a file, a folder, or ba2motifs")
    parser.add_argument("--root", type=Path, help="a folder of data sets, made if a set has to be downloaded")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--ratio", type=float, default=0.1, help="share of nodes or edges dropped or changed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--out", type=Path, help="folder; by default one in runs/graphcl, named after the options above"
    )
    parser.add_argument("--resume", default="never", choices=["never", "auto"], help="auto: go on with what is there")
    options = parser.parse_args()
    given = (Path(options.dataset).stem, options.epochs, options.batch_size, options.ratio, options.seed)
    out = options.out or Path("runs", "graphcl", "-".join(map(str, given)))

    data = graph.load(options.dataset, options.root).train
    torch.manual_seed(options.seed)
    method = graphcl(data.num_features)
    untrained = kt.evaluate.embed(method.encoder, data)
    run = kt.Run(
        method,
        data,
        augmenter=views(options.ratio),
        epochs=options.epochs,
        batch_size=options.batch_size,
        optimizer=kt.AdamW(0.01, weight_decay=0.0),
        warmup_epochs=0,
        schedule="constant",  # as the paper trains
        drop_last=False,
        seed=options.seed,
        out=out,
        resume=options.resume,
    )
    run.fit()
    if kt.rank() != 0:
        return
    trained = kt.evaluate.embed(run.encoder, data)
    if data.labels is not None:
        picture = out / "embedding.png"
        kt.embedding_picture({"untrained": untrained.rows, "trained": trained.rows}, data.labels, picture)
        print(f"picture: {picture}")
        print(f"accuracy of the encoder as it was drawn {float(kt.evaluate.svm(untrained)):.1f}")
        print(f"accuracy {float(kt.evaluate.svm(trained)):.1f}")


if __name__ == "__main__":
    try:
        main()
    except kt.KontrastError as error:  # says in a sentence what is wrong with the options or the data
        print(f"graphcl.py: {error}", file=sys.stderr)
        sys.exit(2)
