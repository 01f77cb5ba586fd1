"""The conformance checks of methods on several processes: the gradient of each step is that of one process.

Shapes: B samples of a batch.
"""

import math

import torch

from kontrast import Augmenter, Data, Method, rank, world_size
from kontrast.norm import sync_batch_norms

from .checks import ConformanceError
from .method import BATCHES, MethodCase, Stepped, make_step, views_of
from .processes import processes

__all__ = ["CHECKS"]


def on_rank(method: Method, data: Data, augmenter: Augmenter) -> list[Stepped]:
    """Return this rank's three steps; each process runs this."""
    sync_batch_norms(method)
    steps = []
    for step in range(len(BATCHES)):
        own = torch.arange(BATCHES[step]).tensor_split(world_size())[rank()]
        views = views_of(data, augmenter, step, slice(int(own[0]), int(own[-1]) + 1))
        steps.append(make_step(method, views, step))
    return steps


def gradient_on_2_processes(case: MethodCase) -> None:
    """Two processes have other gradients or another loss than one, in one of three steps, the last uneven."""
    _same_steps(case, 2)


def gradient_on_3_processes(case: MethodCase) -> None:
    """Three processes have other gradients or another loss than one, in one of three steps, the last uneven."""
    _same_steps(case, 3)


def _same_steps(case: MethodCase, world: int) -> None:
    one = on_rank(case.method(), case.data, case.augmenter)
    for number, steps in enumerate(processes().run(world, on_rank, case.method(), case.data, case.augmenter)):
        for step, (found, expected) in enumerate(zip(steps, one, strict=True)):
            where = f"in step {step} rank {number} of {world}"
            if not math.isclose(found.value, expected.value, rel_tol=1e-6, abs_tol=1e-9):
                raise ConformanceError(f"{where} has loss {found.value:.7g}, and one process {expected.value:.7g}")
            for name, gradient in expected.gradients.items():
                if name not in found.gradients:
                    raise ConformanceError(f"{where} has no gradient of `{name}`, and one process has")
                bound = 1e-6 * float(gradient.abs().max()) + 1e-9
                if not torch.allclose(found.gradients[name], gradient, rtol=1e-6, atol=bound):
                    raise ConformanceError(f"{where} has another gradient of `{name}` than one process")


CHECKS = (gradient_on_2_processes, gradient_on_3_processes)
