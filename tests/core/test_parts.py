import copy
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
import kontrast.norm


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def view_of(inputs: Tensor) -> kt.View:
    return kt.View(inputs, torch.arange(len(inputs)) + 10)


# --- heads


@pytest.mark.parametrize(
    ("sizes", "options", "layers"),
    [
        ((3, 5), {}, "Linear+"),
        ((3, 4, 5), {}, "Linear BatchNorm1d ReLU Linear+"),
        ((3, 4, 4, 5), {"norm": "none"}, "Linear+ ReLU Linear+ ReLU Linear+"),
        ((3, 4, 5), {"last_norm": True}, "Linear BatchNorm1d ReLU Linear BatchNorm1d"),
        ((3, 4, 5), {"last_bias": False}, "Linear BatchNorm1d ReLU Linear"),
    ],
)
def test_an_mlp_has_these_layers(sizes: tuple[int, ...], options: dict[str, Any], layers: str) -> None:
    def name(layer: nn.Module) -> str:
        return type(layer).__name__ + ("+" if isinstance(layer, nn.Linear) and layer.bias is not None else "")

    head = kt.mlp(*sizes, **options)
    assert " ".join(name(layer) for layer in head) == layers
    assert [layer.out_features for layer in head if isinstance(layer, nn.Linear)] == list(sizes[1:])
    assert head(torch.ones(2, 3)).shape == (2, 5)


@pytest.mark.parametrize("sizes", [(), (3,), (3, 0), (-1, 2)])
def test_an_mlp_needs_two_widths(sizes: tuple[int, ...]) -> None:
    with pytest.raises(kt.InvalidValueError, match="`sizes` of an mlp must be two or more widths >= 1, got "):
        kt.mlp(*sizes)


def test_an_mlps_norm_is_one_of_two() -> None:
    with pytest.raises(kt.InvalidValueError, match="`norm` must be batch or none, got 'layer'"):
        kt.mlp(2, 2, norm=cast(Any, "layer"))


# --- encoders


class Sized(nn.Linear):
    representation_size = 7


def test_any_module_becomes_an_encoder() -> None:
    linear = nn.Linear(3, 2)
    encoder = kt.as_encoder(linear)
    assert isinstance(encoder, kt.Encoder)
    assert torch.equal(encoder(torch.ones(4, 3)), linear(torch.ones(4, 3)))
    assert list(encoder.parameters()) == list(linear.parameters())
    assert kt.as_encoder(encoder) is encoder
    assert kt.as_encoder(Sized(3, 2)).representation_size == 7
    assert kt.as_encoder(Sized(3, 2), 2).representation_size == 2


def test_an_encoder_says_what_it_cannot_know() -> None:
    encoder = kt.as_encoder(nn.Linear(3, 2))
    with pytest.raises(kt.IncompatibleError, match=r"size of Linear's output .*\(module, representation_size="):
        _ = encoder.representation_size
    with pytest.raises(AttributeError, match=r"no attribute .representation\b"):
        _ = encoder.representation
    with pytest.raises(kt.InvalidValueError, match=r"an encoder must be a torch\.nn\.Module, got function"):
        kt.as_encoder(cast(Any, lambda inputs: inputs))


class Returns(nn.Module):
    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value

    def forward(self, inputs: Tensor) -> object:
        return self.value


@pytest.mark.parametrize(
    ("output", "found"),
    [
        (torch.ones(4, 5, 2), r"got \[4, 5, 2\] from"),
        (torch.ones(3, 2), r"got \[3, 2\] from"),
        (torch.ones(4), r"got \[4\] from"),
        ((torch.ones(4, 2),), "got tuple from"),
    ],
)
def test_an_encoder_returns_one_row_per_row(output: object, found: str) -> None:
    encoder = kt.as_encoder(Returns(output))
    with pytest.raises(kt.InvalidValueError, match=rf"one representation per row, \[4, D\], {found}.*; pool it"):
        encoder.encode(view_of(torch.ones(4, 3)), torch.arange(4))


def test_encode_carries_the_keys_of_the_view() -> None:
    keys: dict[str, Any] = {name: torch.arange(4) for name in ("ids", "labels", "groups")}
    elements: dict[str, Any] = {"valid": random(4, 3).gt(0), "coords": random(4, 3).mul(100).long()}
    copies = torch.arange(4) + 50
    encoded = kt.as_encoder(nn.Identity()).encode(kt.View(random(4, 2), **keys, **elements), copies)
    assert encoded.rows is not None
    assert torch.equal(encoded.rows, random(4, 2))
    assert encoded.copies is copies
    for name, value in (keys | elements).items():
        assert getattr(encoded, name) is value


# --- momentum


@pytest.mark.parametrize(
    ("momentum", "final", "progress", "value"),
    [
        (0.9, None, 0.0, 0.9),
        (0.9, None, 0.7, 0.9),
        (0.9, 1.0, 0.0, 0.9),
        (0.9, 1.0, 0.25, 1 - 0.1 * (1 + math.sqrt(0.5)) / 2),
        (0.9, 1.0, 0.5, 0.95),
        (0.9, 1.0, 1.0, 1.0),
        (1.0, 0.0, 0.5, 0.5),
        (0.0, 0.0, 0.3, 0.0),
    ],
)
def test_momentum_rises_by_a_half_cosine(momentum: float, final: float | None, progress: float, value: float) -> None:
    assert kt.Momentum(momentum, final).at(progress) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_momentum_is_a_share(value: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=r"`momentum` must be in \[0, 1\], got .*; it is the share of"):
        kt.Momentum(value)
    with pytest.raises(kt.InvalidValueError, match=r"`final` must be in \[0, 1\], got "):
        kt.Momentum(0.5, final=value)


@pytest.mark.parametrize("rule", [kt.Momentum(0.8, final=1.0), kt.Momentum(0.0), kt.Momentum(1.0)])
def test_a_momentum_copy_moves_as_in_loops(rule: kt.Momentum) -> None:
    online = kt.mlp(3, 4, 2).double()
    target = rule.copy_of(online)
    assert not any(parameter.requires_grad for parameter in target.parameters())
    with torch.no_grad():
        for i, parameter in enumerate(online.parameters()):
            parameter.copy_(random(*parameter.shape, seed=i))
    online(random(8, 3))  # moves the running statistics, which the copy does not follow
    old = [parameter.tolist() for parameter in map(torch.flatten, target.parameters())]
    new = [parameter.tolist() for parameter in map(torch.flatten, online.parameters())]
    buffers = copy.deepcopy(dict(target.named_buffers()))
    rule.update(target, online, progress=0.3)
    share = rule.at(0.3)
    for parameter, before, towards in zip(target.parameters(), old, new, strict=True):
        expected = [share * a + (1 - share) * b for a, b in zip(before, towards, strict=True)]
        assert parameter.flatten().tolist() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    for parameter, unmoved in zip(online.parameters(), new, strict=True):
        assert parameter.flatten().tolist() == unmoved
    assert all(torch.equal(value, buffers[name]) for name, value in target.named_buffers())


# --- augmenters


def test_identity_gives_the_batch_as_it_is() -> None:
    batch = kt.Batch(torch.ones(3, 2), torch.arange(3), labels=torch.ones(3, dtype=torch.int64))
    views = kt.Identity(3)(batch, kt.Draws(0))
    assert len(views) == 3
    for view in views:
        assert (view.inputs is batch.inputs, view.ids is batch.ids, view.labels is batch.labels) == (True, True, True)
    with pytest.raises(kt.InvalidValueError, match="`num_views` must be >= 1, got 0"):
        kt.Identity(0)


def test_views_go_to_their_towers() -> None:
    batch = kt.Batch(torch.ones(3, 2), torch.arange(3))
    views = kt.ToTowers(kt.Identity(2), "image", "text")(batch, kt.Draws(0))
    assert [view.tower for view in views] == ["image", "text"]
    with pytest.raises(kt.InvalidValueError, match="one tower per view, got 1 towers and 2 views"):
        kt.ToTowers(kt.Identity(2), "image")(batch, kt.Draws(0))
