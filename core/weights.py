"""An encoder's weights, of a run that has ended or of a checkpoint of one that goes on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from .checkpoint import Checkpoints
from .encoder import as_encoder, unwrapped
from .errors import IncompatibleError, InvalidValueError

__all__ = ["load_encoder"]


def load_encoder(encoder: nn.Module, path: str | Path) -> nn.Module:
    """Load the weights that a run saved into an encoder of the same shape, and return it in evaluation mode.

    Args:
        encoder: made as for the run.
        path: an ended run's folder, its safetensors file, or a checkpoint (`.pt`) of a run that has not ended.

    Raises:
        InvalidValueError: if there is no such file, it holds no weights, or `encoder` is no module.
        CheckpointError: if a checkpoint is damaged, or none of kontrast.
        IncompatibleError: if their names or shapes differ.
    """
    if not isinstance(encoder, nn.Module):
        raise InvalidValueError(f"`encoder` must be a torch.nn.Module, got {encoder!r}; the path comes second")
    file = Path(path)
    if file.is_dir():
        file = file / "encoder.safetensors"
    if not file.is_file():
        raise InvalidValueError(
            f"`path` must be a finished run's folder, its safetensors file or a checkpoint, and {file} is not there"
        )
    checkpoint = file.suffix == ".pt"
    saved = _of_checkpoint(file) if checkpoint else _of_file(file)
    module: nn.Module = as_encoder(encoder) if checkpoint else unwrapped(encoder)
    own = {key: value for key, value in module.state_dict().items() if isinstance(value, Tensor)}
    wrong = sorted(
        name
        for name in saved.keys() | own.keys()
        if name not in saved or name not in own or saved[name].shape != own[name].shape
    )
    if wrong:
        raise IncompatibleError(
            f"{file} holds another encoder than {type(encoder).__name__}: "
            f"{', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''} differ; make the encoder as for the run"
        )
    module.load_state_dict(saved, strict=False)  # compared above, but for state that is no tensor
    return encoder.eval()


def _of_file(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise InvalidValueError(f"{file} must hold weights, got: {error}") from error


def _of_checkpoint(file: Path) -> dict[str, Tensor]:
    """Return the encoder's part of a method's state: the mean of its weights, where the method keeps one."""
    state: Mapping[str, Any] = Checkpoints(file.parent).load(file)["method"]
    towers = "average.module." if any(name.startswith("average.module.") for name in state) else "towers."
    names = sorted({name.removeprefix(towers).partition(".")[0] for name in state if name.startswith(towers)})
    if len(names) != 1:
        raise IncompatibleError(
            f"a checkpoint must hold one encoder to be loaded from, and {file} holds {', '.join(names)}; let the run "
            "end, and load the one you mean from its encoder-NAME.safetensors"
        )
    prefix = f"{towers}{names[0]}.encoder."
    return {
        name.removeprefix(prefix): value
        for name, value in state.items()
        if name.startswith(prefix) and isinstance(value, Tensor)
    }
