"""Everything a run must hold to go on as if it had not stopped, as one dictionary of tensors and plain values."""

import itertools
import random
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar
from warnings import warn

import numpy as np
import torch
import torch.distributed as dist

from .augmenter import Augmenter
from .checkpoint import CheckpointError
from .distributed import rank, world_size
from .fingerprint import compare_fingerprints
from .gradient import random_state, set_random_state
from .leaves import Leaves
from .method import Method
from .run_checks import InexactWarning

__all__ = ["collect_state", "restore_state", "seed_generators"]

T = TypeVar("T")


def collect_state(
    method: Method,
    optimizer: torch.optim.Optimizer,
    augmenter: Augmenter,
    identity: Mapping[str, Any],
    data: Leaves,
    step: int,
    totals: dict[str, list[float]],
) -> dict[str, Any]:
    """Return the state after `step` steps. Every rank must call it: each adds the state of its generators.

    Args:
        method: weights, momentum copies, queues, whatever its modules keep.
        optimizer: its moments.
        augmenter: its state, if it has any.
        identity: what the run is; another run's checkpoint is refused by it.
        data: their fingerprint; other data are refused by it.
        step: the number of steps done, which places data order and schedules too.
        totals: the metrics of the epoch so far, [sum, count] each.
    """
    generators = _of_all(_generators())
    return {
        "step": step,
        "method": method.state_dict(),
        "optimizer": optimizer.state_dict(),
        "augmenter": augmenter.state_dict(),
        "generators": generators,
        "totals": totals,
        "identity": dict(identity),
        "data": data,
        "versions": {name: version(name) for name in ("kontrast", "numpy", "torch")},
    }


def restore_state(
    state: dict[str, Any],
    path: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    augmenter: Augmenter,
    identity: Mapping[str, Any],
    data: Leaves,
    *,
    any_world: bool,
) -> tuple[int, dict[str, list[float]]]:
    """Put a saved state back; return the number of steps done and the metrics of the epoch so far.

    Raises:
        CheckpointError: if it is of another run or other data, or of another number of processes and `any_world` does
            not allow it.
    """
    differing = sorted(
        name for name in {*identity, *state["identity"]} if identity.get(name) != state["identity"].get(name)
    )
    if differing:
        pairs = {name: _differing(state["identity"].get(name), identity.get(name)) for name in differing}
        examples = "; ".join(f"{name} was {was} and is {now}" for name, (was, now) in pairs.items())
        raise CheckpointError(
            f"{path} must be a checkpoint of this run, and differs in {examples}; "
            "resume with the settings it was started with, or start another run"
        )
    # Older checkpoints say nothing of the data. All processes leave, wherever one finds others.
    other = next(filter(None, _of_all(compare_fingerprints(state.get("data", data), data))), None)
    if other:
        raise CheckpointError(
            f"{path} must be resumed with the data it was started with, and in those given {other}; give it the same "
            "data, or start another run"
        )
    saved_world = len(state["generators"])
    if saved_world != world_size():
        if not any_world:
            raise CheckpointError(
                f"{path} must be resumed by {saved_world} processes, got {world_size()}; "
                "start as many, or allow another number (any_world=True, --any_world true)"
            )
        warn(
            f"resuming a run of {saved_world} processes with {world_size()}: order of samples and augmentation stay "
            "the same, and so do negatives, but for those of accumulated micro-batches; dropout draws other "
            "numbers, and sums are rounded otherwise",
            InexactWarning,
            stacklevel=3,
        )
    method.load_state_dict(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    augmenter.load_state_dict(state["augmenter"])
    if rank() < saved_world:
        _set_generators(state["generators"][rank()])
    else:
        seed_generators(state["step"] * 1_000_003 + rank())
    return int(state["step"]), dict(state["totals"])


def seed_generators(seed: int) -> None:
    """Seed every generator that an encoder or a third party's augmenter may draw from."""
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)


def _of_all(own: T) -> list[T]:
    """Return what each process calls this with, in rank order."""
    found = [own] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, own)
    return found


def _generators() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": random_state(),
        # Augmenters of third parties may draw from these two.
        "numpy": (str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), position, has_gauss, gauss),
        "python": random.getstate(),
    }


def _set_generators(state: dict[str, Any]) -> None:
    set_random_state(state["torch"])
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    random.setstate(state["python"])


def _differing(before: Any, now: Any) -> tuple[str, str]:
    """Return the first lines in which two descriptions differ, short enough for a sentence."""
    lines = itertools.zip_longest(str(before).splitlines(), str(now).splitlines(), fillvalue="")
    first = next((pair for pair in lines if pair[0] != pair[1]), ("", ""))
    was, is_ = (" ".join(line.split()) for line in first)
    return was[:80] or "nothing", is_[:80] or "nothing"
