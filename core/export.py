"""Encoders for use elsewhere: as weights alone, as a torch.export program, as ONNX; any batch size.

Read again without kontrast::

    weights = safetensors.torch.load_file("encoder.safetensors")
    vectors = torch.export.load("encoder.pt2").module()(images)
    vectors = onnxruntime.InferenceSession("encoder.onnx").run(None, {"inputs": images})[0]
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from .encoder import unwrapped
from .errors import IncompatibleError, UnknownNameError
from .optional import optional_import

__all__ = ["FORMATS", "export"]

_LARGEST_ONNX = 2**31  # bytes; protobuf's limit of one message


def export(
    encoder: nn.Module, to: str, inputs: Any = None, *, described: Mapping[str, Any] | None = None
) -> Callable[[BinaryIO], object]:
    """Return what writes an encoder to an open file.

    Args:
        encoder: in evaluation mode, on the CPU.
        to: `"safetensors"` (weights alone), `"torch-export"` or `"onnx"`.
        inputs: an example of at least two samples: a tensor, or a mapping of tensors, samples in the first dimension;
            the others stay as they are here. Not needed for weights.
        described: what the weights are of, written beside them.

    Raises:
        UnknownNameError: for another format.
        MissingExtraError: if a package that a format needs is not installed.
        IncompatibleError: if the encoder cannot be traced, or is too large for the format.
    """
    if to not in FORMATS:
        raise UnknownNameError("format", to, FORMATS)
    return FORMATS[to](encoder, inputs, {} if described is None else described)


def _safetensors(encoder: nn.Module, inputs: Any, described: Mapping[str, Any]) -> Callable[[BinaryIO], object]:
    state = unwrapped(encoder).state_dict()  # tensors alone, under the names of the user's own module
    tensors = {
        name: value.detach().cpu().clone().contiguous() for name, value in state.items() if isinstance(value, Tensor)
    }
    content = safetensors.torch.save(tensors, {"format": "pt", "encoder": json.dumps(dict(described), default=str)})
    return lambda handle: handle.write(content)


def _torch_export(encoder: nn.Module, inputs: Any, described: Mapping[str, Any]) -> Callable[[BinaryIO], object]:
    program = _traced(encoder, inputs)
    return lambda handle: torch.export.save(program, handle)


def _onnx(encoder: nn.Module, inputs: Any, described: Mapping[str, Any]) -> Callable[[BinaryIO], object]:
    for package in ("onnx", "onnxscript"):
        optional_import(package, extra="kontrast[onnx]", purpose="export to ONNX")
    program = _traced(encoder, inputs)
    size = sum(tensor.nbytes for tensor in program.state_dict.values())
    if size >= _LARGEST_ONNX:
        raise IncompatibleError(
            f"an ONNX file must be smaller than 2 GiB, and the weights take {size / 2**30:.1f}; take torch-export"
        )
    names = ["inputs"] if isinstance(inputs, Tensor) else list(inputs)
    try:
        converted = torch.onnx.export(
            program, input_names=names, output_names=["representations"], dynamo=True, verbose=False
        )
    except Exception as error:  # whatever the converter raises
        raise _cannot(encoder, "ONNX", error) from error
    assert converted is not None
    content = converted.model_proto.SerializeToString()
    return lambda handle: handle.write(content)


FORMATS = {"onnx": _onnx, "safetensors": _safetensors, "torch-export": _torch_export}


def _traced(encoder: nn.Module, inputs: Any) -> ExportedProgram:
    shape = {0: Dim("batch", min=1)}
    shapes: Any
    if isinstance(inputs, Tensor):
        shapes = shape
    elif isinstance(inputs, Mapping) and all(isinstance(value, Tensor) for value in inputs.values()):
        shapes = dict.fromkeys(inputs, shape)
    else:
        raise IncompatibleError(
            f"inputs must be a tensor or a mapping of tensors to be exported, got {type(inputs).__name__}; "
            "export to safetensors, and make the encoder where it is used"
        )
    try:
        with torch.no_grad():
            return torch.export.export(encoder, (inputs,), dynamic_shapes=(shapes,))
    except Exception as error:  # an encoder may fail in any way when traced
        raise _cannot(encoder, "a program for any batch size", error) from error


def _cannot(encoder: nn.Module, what: str, error: Exception) -> IncompatibleError:
    lines = str(error).strip().splitlines()
    cause = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return IncompatibleError(
        f"{type(encoder).__name__} cannot be exported to {what}: {cause}; export to safetensors, and make the encoder "
        "where it is used"
    )
