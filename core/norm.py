"""Batch normalisation over the joined batch of all ranks, on any device.

Shapes: M rows of this rank, C channels.
"""

import torch
from torch import Tensor, nn

from .distributed import all_sum, world_size
from .errors import InvalidValueError

__all__ = ["SyncBatchNorm", "sync_batch_norms"]


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """BatchNorm whose statistics are those of all ranks' rows together, exact for ranks of different size.

    torch's own refuses CPU tensors; this one is built on `all_sum` and takes any. Inputs are [M, C] or [M, C, ...].
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise InvalidValueError(f"SyncBatchNorm takes [M, C] or [M, C, ...], got {list(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """Normalise with the statistics of all ranks in training, as BatchNorm in evaluation or with one process."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        dims = [dim for dim in range(input.ndim) if dim != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        # The count travels with the sums: ranks may hold different numbers of rows.
        count = values.new_tensor([values.numel() / values.shape[1]])
        total = all_sum(torch.cat([values.sum(dims), count]))
        n = total[-1].detach()
        mean = total[:-1] / n
        centred = values - mean.view(shape)
        variance = all_sum(centred.square().sum(dims)) / n
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            self._track(mean.detach(), variance.detach() * n / (n - 1).clamp(min=1))
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        share = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if share is None else share
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share or 0.0)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share or 0.0)


def sync_batch_norms(module: nn.Module) -> nn.Module:
    """Return `module` with each BatchNorm replaced by one over all ranks: torch's own on CUDA, ours elsewhere."""
    first = next(module.parameters(), None)
    if first is not None and first.device.type == "cuda":
        by_torch: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return by_torch
    converted: dict[nn.Module, nn.Module] = {}
    for path, part in list(module.named_modules(remove_duplicate=False)):
        if not isinstance(part, nn.modules.batchnorm._BatchNorm) or isinstance(part, (SyncBatchNorm, nn.SyncBatchNorm)):
            continue
        synced = converted.setdefault(part, _synced(part))  # one that is used twice stays one
        if not path:
            return synced
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent), name, synced)
    return module


def _synced(norm: nn.modules.batchnorm._BatchNorm) -> SyncBatchNorm:
    synced = SyncBatchNorm(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats)
    # The same parameter and buffer objects: an optimizer or a momentum copy made earlier stays valid.
    synced._parameters = norm._parameters
    synced._buffers = norm._buffers
    return synced.train(norm.training)
