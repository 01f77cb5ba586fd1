"""Pictures of representations."""

from pathlib import Path

import torch
from torch import Tensor

from .errors import InvalidValueError
from .optional import optional_import

__all__ = ["embedding_picture"]


def embedding_picture(panels: dict[str, Tensor], labels: Tensor, path: str | Path, *, limit: int = 2000) -> Path:
    """Save a picture of representations: one panel each, laid out by t-SNE on the cosine, coloured by class.

    Args:
        panels: title -> representations [N, D], N >= 4.
        labels: classes, int64 [N].
        path: a .png, .svg or .pdf.
        limit: samples drawn at most, taken at random; the layout's time grows faster than their number.

    Raises:
        MissingExtraError: if matplotlib or scikit-learn is not installed.
        InvalidValueError: if a panel does not have one row per label, or there are too few rows.
    """
    matplotlib, backend, sklearn, threadpoolctl = (
        optional_import(name, extra="kontrast[report]", purpose="a picture")
        for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "sklearn.manifold", "threadpoolctl")
    )
    if not panels:
        raise InvalidValueError("a picture needs at least one panel, got none")
    if len(labels) < 4:
        raise InvalidValueError(f"a layout needs at least 4 samples, got {len(labels)}")
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))[:limit].sort().values
    figure = matplotlib.Figure(figsize=(4.2 * len(panels), 4.4), layout="constrained")
    backend.FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        if rows.ndim != 2 or len(rows) != len(labels):
            raise InvalidValueError(f"panel `{title}` must be [{len(labels)}, D], got {list(rows.shape)}")
        layout = sklearn.TSNE(metric="cosine", perplexity=min(30, (len(chosen) - 1) / 3), init="random", random_state=0)
        with threadpoolctl.threadpool_limits(1):  # on few samples its threads spend their time waiting for each other
            flat = layout.fit_transform(rows[chosen].detach().float().cpu().numpy())
        axis.scatter(flat[:, 0], flat[:, 1], c=labels[chosen].numpy(), cmap="tab10", s=9, linewidths=0)
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    handles, names = axes[-1].collections[0].legend_elements(num=_ticks(labels))
    figure.legend(handles, names, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)
    return Path(path)


def _ticks(labels: Tensor) -> list[int]:
    """Return the classes that the legend names: all of them, or ten of many."""
    classes: list[int] = labels.unique().tolist()
    return classes if len(classes) <= 10 else classes[:: -(-len(classes) // 10)]
