"""A picture of series beside those that their representations are closest to.

Shapes: N series, D representation size.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

import kontrast as kt

__all__ = ["neighbor_picture"]


def neighbor_picture(
    encoder: nn.Module,
    data: kt.ArrayData,
    queries: Sequence[int],
    path: str | Path,
    *,
    neighbors: int = 4,
    batch_size: int = 256,
) -> Path:
    """Save a picture: a row for each query, the series first, then its nearest by Euclidean distance, nearest first.

    Args:
        encoder: series [B, T, C] -> [B, D].
        data: the series; their classes stand above the panels where there are any.
        queries: which series to begin rows with, by their number in the data.
        path: a .png, .svg or .pdf; its folder is made if need be.
        neighbors: panels beside each query, >= 1.
        batch_size: series encoded at once.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        InvalidValueError: if there are no queries, no such series, too few neighbours, or the file is of another kind.
    """
    matplotlib, backend = (
        kt.optional_import(name, extra="kontrast[report]", purpose="a picture")
        for name in ("matplotlib.figure", "matplotlib.backends.backend_agg")
    )
    queries, path = [int(query) for query in queries], Path(path)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise kt.InvalidValueError(f"`path` must end in .png, .svg or .pdf, got {path.name}")
    if not queries or not all(0 <= query < len(data) for query in queries):
        raise kt.InvalidValueError(f"`queries` must be numbers of series in 0..{len(data) - 1}, got {queries}")
    if not 1 <= neighbors < len(data):
        raise kt.InvalidValueError(f"`neighbors` must be in 1..{len(data) - 1}, the other series, got {neighbors!r}")
    rows = kt.evaluate.embed(encoder, data, batch_size=batch_size).rows
    chosen = torch.tensor(queries)
    distances = torch.cdist(rows[chosen], rows)
    distances[torch.arange(len(chosen)), chosen] = -1.0  # first itself
    near = distances.topk(neighbors + 1, largest=False)
    figure = matplotlib.Figure(figsize=(2.2 * (neighbors + 1), 1.6 * len(queries)), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.subplots(len(queries), neighbors + 1, squeeze=False, sharex=True, sharey="row")
    for line, distance, found in zip(axes, near.values.tolist(), near.indices.tolist(), strict=True):
        for axis, far, number in zip(line, distance, found, strict=True):
            label = "" if data.labels is None else f", class {int(data.labels[number])}"
            axis.plot(data.inputs[number].numpy(), linewidth=0.9)  # a gap stays one
            axis.set_title(f"{number}{label}" + ("" if far < 0 else f"\ndistance {far:.3g}"), fontsize=7)
            axis.tick_params(labelsize=6)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    return path
