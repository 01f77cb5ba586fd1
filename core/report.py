"""Pictures of representations."""

from pathlib import Path

import torch
from torch import Tensor

from .errors import InvalidValueError, MissingExtraError

__all__ = ["embedding_picture"]


def embedding_picture(panels: dict[str, Tensor], labels: Tensor, path: str | Path) -> Path:
    """Save a picture of representations: one panel each, their two first principal components, coloured by class.

    Args:
        panels: title -> representations [N, D].
        labels: classes, int64 [N].
        path: a .png, .svg or .pdf.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        InvalidValueError: if a panel does not have one row per label.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            "pictures need matplotlib, which is not installed; run `pip install 'kontrast[report]'`"
        ) from error
    if not panels:
        raise InvalidValueError("a picture needs at least one panel, got none")
    figure = Figure(figsize=(4.2 * len(panels), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, rows) in zip(axes, panels.items(), strict=True):
        if rows.ndim != 2 or len(rows) != len(labels):
            raise InvalidValueError(f"panel `{title}` must be [{len(labels)}, D], got {list(rows.shape)}")
        centred = rows.double() - rows.double().mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        flat = (centred @ directions[:2].T).numpy()
        axis.scatter(flat[:, 0], flat[:, 1], c=labels.numpy(), cmap="tab10", s=9, linewidths=0)
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
    handles, names = axes[-1].collections[0].legend_elements()
    figure.legend(handles, names, loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)
    return Path(path)
