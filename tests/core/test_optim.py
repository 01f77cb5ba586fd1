import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import kontrast as kt
from kontrast.lars import Lars
from kontrast.optim import OptimizerSettings, learning_rate_factor

SETTINGS: dict[str, type[OptimizerSettings]] = {"adamw": kt.AdamW, "lars": kt.LARS, "sgd": kt.SGD}


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def lars_in_loops(
    weight: list[float],
    gradients: list[list[float]],
    *,
    lr: float,
    momentum: float,
    decay: float,
    trust: float,
    adapt: bool,
) -> list[float]:
    """The published update, one number at a time."""
    weight, velocity = list(weight), [0.0] * len(weight)
    for gradient in gradients:
        decayed = [g + decay * w for g, w in zip(gradient, weight, strict=True)]
        weight_norm = math.sqrt(sum(w * w for w in weight))
        step_norm = math.sqrt(sum(g * g for g in decayed))
        ratio = trust * weight_norm / step_norm if adapt and weight_norm > 0 and step_norm > 0 else 1.0
        for i, g in enumerate(decayed):
            velocity[i] = momentum * velocity[i] + ratio * g
            weight[i] -= lr * velocity[i]
    return weight


STARTS = {
    "matrix": random(3, 4, seed=1),
    "vector": random(5, seed=2),
    "zero weights": torch.zeros(2, 2, dtype=torch.float64),
    "one number": random(1, seed=3),
}


@pytest.mark.parametrize("adapt", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_lars_is_its_formula(adapt: bool, decay: float, momentum: float) -> None:
    weights = [nn.Parameter(start.clone()) for start in STARTS.values()]
    gradients = [[random(*w.shape, seed=10 * step + i) for i, w in enumerate(weights)] for step in range(5)]
    gradients[2][0].zero_()  # no gradient to divide by
    optimizer = Lars(
        [{"params": weights, "adapt": adapt}], 0.3, momentum=momentum, weight_decay=decay, trust_coefficient=0.02
    )
    for step in gradients:
        for weight, gradient in zip(weights, step, strict=True):
            weight.grad = gradient.clone()
        optimizer.step()
    for i, (weight, start) in enumerate(zip(weights, STARTS.values(), strict=True)):
        expected = lars_in_loops(
            start.flatten().tolist(),
            [step[i].flatten().tolist() for step in gradients],
            lr=0.3,
            momentum=momentum,
            decay=decay,
            trust=0.02,
            adapt=adapt,
        )
        torch.testing.assert_close(
            weight.detach().flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14
        )


def test_lars_leaves_alone_what_has_no_gradient_and_returns_the_closures_loss() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = Lars([used, unused], 0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (used * used).sum()
        loss.backward()
        return float(loss.detach())

    assert optimizer.step(closure) == 2.0
    assert used.detach().lt(1).all()
    assert unused.detach().eq(1).all()
    assert unused not in optimizer.state


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3)).double()


def train(module: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        module(random(8, 4, seed=step)).square().mean().backward()
        optimizer.step()


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_saved_optimizer_goes_on_identically(settings: type[OptimizerSettings]) -> None:
    whole = network()
    optimizer = settings(learning_rate=0.1).build(whole)
    train(whole, optimizer, range(3))
    resumed = network()
    resumed.load_state_dict(whole.state_dict())
    # Built with another rate: what counts is what was saved.
    other = settings(learning_rate=0.7).build(resumed)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # torch would share the tensors
    train(whole, optimizer, range(3, 6))
    train(resumed, other, range(3, 6))
    start = network().state_dict()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
        assert not torch.equal(value, start[name]), name


@pytest.mark.parametrize(
    ("settings", "share"),
    [
        (kt.SGD(learning_rate=0.1, weight_decay=0.5), 0.1 * 0.5),
        (kt.AdamW(learning_rate=0.1, weight_decay=0.5), 0.1 * 0.5),
        # The decay is the whole gradient, so the trust ratio divides it out.
        (kt.LARS(learning_rate=0.1, weight_decay=0.5, trust_coefficient=0.2), 0.1 * 0.2),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, OptimizerSettings) else "",
)
def test_matrices_decay_and_biases_and_norm_scales_do_not(settings: OptimizerSettings, share: float) -> None:
    module = network()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = settings.build(module)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        expected = before[name] * (1 - share) if parameter.ndim > 1 else before[name]
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=0)


def test_lars_does_not_adapt_biases_and_norm_scales() -> None:
    module = network()
    before = {name: value.detach().clone() for name, value in module.named_parameters()}
    optimizer = kt.LARS(learning_rate=0.5, momentum=0.0).build(module)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, parameter in module.named_parameters():
        plain = torch.allclose(parameter.detach(), before[name] - 0.5)
        assert plain == (parameter.ndim <= 1), name


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_build_over_what_is_trainable(settings: type[OptimizerSettings]) -> None:
    module = network()
    for parameter in module[0].parameters():
        parameter.requires_grad_(False)
    optimizer = settings(learning_rate=0.25).build(module)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in module.parameters() if parameter.requires_grad)
    assert {group["lr"] for group in optimizer.param_groups} == {0.25}
    # Nothing but matrices: no group is empty, which torch would warn of or refuse.
    assert len(settings(learning_rate=0.25).build(nn.Linear(2, 2, bias=False)).param_groups) == 1


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_settings_carry_their_parameters(settings: type[OptimizerSettings]) -> None:
    given: dict[str, Any] = {"weight_decay": 0.125} | ({} if settings is kt.AdamW else {"momentum": 0.25})
    group = settings(learning_rate=0.5, **given).build(network()).param_groups[0]
    assert {name: group[name] for name in given} == given
    if settings is kt.AdamW:
        assert kt.AdamW(beta1=0.5, beta2=0.75).build(network()).param_groups[0]["betas"] == (0.5, 0.75)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_nothing_to_train_is_refused(settings: type[OptimizerSettings]) -> None:
    frozen = nn.Linear(2, 2).requires_grad_(False)
    for module, name in ((nn.ReLU(), "ReLU"), (frozen, "Linear")):
        with pytest.raises(kt.InvalidValueError, match=f"{name} has no parameter that requires a gradient"):
            settings(learning_rate=0.1).build(module)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_a_learning_rate_is_positive(settings: type[OptimizerSettings], value: float) -> None:
    with pytest.raises(kt.InvalidValueError, match=f"`learning_rate` must be > 0, got {value!r}"):
        settings(learning_rate=value)


@pytest.mark.parametrize("settings", [kt.SGD, kt.LARS])
@pytest.mark.parametrize("name", ["momentum", "weight_decay"])
def test_other_negative_settings_are_refused_at_the_latest_when_built(
    settings: type[OptimizerSettings], name: str
) -> None:
    wrong: dict[str, Any] = {name: -0.5}
    with pytest.raises(ValueError, match=name):
        settings(learning_rate=0.1, **wrong).build(network())


@pytest.mark.parametrize(
    ("step", "total", "warmup", "factor"),
    [
        (0, 100, 0, 1.0),
        (25, 100, 0, (1 + math.sqrt(0.5)) / 2),
        (50, 100, 0, 0.5),
        (100, 100, 0, 0.0),
        (150, 100, 0, 0.0),
        (0, 100, 20, 1 / 20),
        (9, 100, 20, 0.5),
        (19, 100, 20, 1.0),
        (20, 100, 20, 1.0),
        (60, 100, 20, 0.5),
        (100, 100, 20, 0.0),
        (4, 5, 5, 1.0),  # nothing but warm-up
        (0, 1, 1, 1.0),
        (0, 1, 0, 1.0),
    ],
)
def test_the_schedules_closed_forms(step: int, total: int, warmup: int, factor: float) -> None:
    assert learning_rate_factor(step, total, warmup) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("warmup", [0, 1, 10, 37])
def test_the_schedule_rises_then_falls_and_never_stands_at_zero(warmup: int) -> None:
    factors = [learning_rate_factor(step, 37, warmup) for step in range(37)]
    assert all(0 < factor <= 1 for factor in factors)
    assert factors[:warmup] == sorted(set(factors[:warmup]))
    assert factors[warmup:] == sorted(set(factors[warmup:]), reverse=True)
    assert max(factors) == 1
