"""`kontrast embed` and `kontrast export`: a run's vectors, and its encoder, for other programs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .command_options import chosen_device, read_options
from .errors import InvalidValueError, UnknownNameError
from .evaluate import embed
from .export import FORMATS, export
from .new_file import refuse_existing, write_new
from .saved_run import open_run

__all__ = ["COMMANDS"]


def _embed(given: Sequence[str]) -> int:
    options = read_options(
        "embed",
        "Write a run's representations of a data set to an .npz with arrays train_rows, train_ids, train_labels and "
        "test_rows, test_ids, test_labels, as far as the data have these.",
        {
            "--data": {"metavar": "SOURCE", "help": "name or file of a data set; the run's by default"},
            "--out": {"metavar": "FILE.npz", "required": True, "help": "a new file"},
            "--device": {"default": "auto", "help": "auto: a GPU where there is one"},
        },
        given,
    )
    out = Path(options.out)
    if out.suffix != ".npz":
        raise InvalidValueError(f"`--out` must end in .npz, got {out.name}")
    refuse_existing(out)
    device = chosen_device(options.device)
    run = open_run(options.run)
    splits = run.load(options.data)
    encoder = run.encoder.to(device)
    arrays: dict[str, Any] = {}
    for part, data in (("train", splits.train), ("test", splits.held_out)):
        if data is None:
            continue
        found = embed(encoder, data)
        arrays[f"{part}_rows"], arrays[f"{part}_ids"] = found.rows.numpy(), found.ids.numpy()
        if found.labels is not None:
            arrays[f"{part}_labels"] = found.labels.numpy()
    write_new(out, lambda handle: np.savez(handle, **arrays))
    if run.note:
        print(run.note)
    print(f"{', '.join(f'{name} {list(array.shape)}' for name, array in arrays.items())} in {out}")
    return 0


def _export(given: Sequence[str]) -> int:
    options = read_options(
        "export",
        "Write a run's encoder for use without kontrast; it takes any batch size, other sizes as in the data.",
        {
            "--to": {"metavar": "FORMAT", "required": True, "help": f"one of {', '.join(FORMATS)}"},
            "--out": {"metavar": "FILE", "help": "a new file; RUN/exported with the format's ending by default"},
            "--data": {"metavar": "SOURCE", "help": "data of the inputs' shape; the run's by default"},
        },
        given,
    )
    if options.to not in FORMATS:
        raise UnknownNameError("format", options.to, FORMATS)
    out = Path(options.run) / f"exported.{_ENDINGS[options.to]}" if options.out is None else Path(options.out)
    refuse_existing(out)
    run = open_run(options.run)
    inputs = None
    if options.to != "safetensors":
        data = run.load(options.data).train
        inputs = data.batch(torch.arange(2) % len(data)).inputs  # a batch of one would be taken for a constant
    write_new(out, export(run.encoder, options.to, inputs, described=run.config["encoder"]))
    if run.note:
        print(run.note)
    print(f"encoder `{run.config['encoder']['name']}`{_shapes(inputs)} in {out}")
    return 0


_ENDINGS = {"onnx": "onnx", "safetensors": "safetensors", "torch-export": "pt2"}

COMMANDS: Mapping[str, Callable[[Sequence[str]], int]] = {"embed": _embed, "export": _export}


def _shapes(inputs: Any) -> str:
    if inputs is None:
        return ""
    named = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    shapes = (
        f"{name} {str(value.dtype).removeprefix('torch.')} [{', '.join(['B', *map(str, value.shape[1:])])}]"
        for name, value in named.items()
    )
    return f", {', '.join(shapes)},"
