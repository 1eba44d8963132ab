"""The update against the equations, written out slowly."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from musgd_cli.optim import MuSGD, musgd  # noqa: E402

SHAPES = [(3, 4), (5,), (2, 3, 2)]


def reference(
    start: list[np.ndarray],
    grads: list[list[np.ndarray]],
    lrs: list[float],
    *,
    momentum: float,
    weight_decay: float,
    adapt_factor: float | str,
    norm_scope: str,
    lr_in_buffer: bool,
    decay_in_norm: bool,
    dampening: float,
    nesterov: bool,
    maximize: bool,
) -> tuple[list[np.ndarray], list[list[float]]]:
    """The article's equations in float64, one tensor after another; parameters and betas."""
    params = [p.copy() for p in start]
    buffers: list[Any] = [None] * len(params)
    history: list[list[float]] = [[] for _ in params]  # n² of every step so far
    betas = []
    for step, lr in enumerate(lrs):
        signed = [-g if maximize else g for g in grads[step]]
        decayed = [g + weight_decay * p for g, p in zip(signed, params, strict=True)]
        measured = decayed if decay_in_norm else signed
        squares = [float((g**2).sum()) for g in measured]
        if norm_scope == "global":
            squares = [sum(squares)] * len(squares)
        betas.append([])
        for i, square in enumerate(squares):
            factor, load = adapt_factor, square
            history[i].append(square)
            if adapt_factor == "auto":
                ages = range(len(history[i]) - 1, -1, -1)
                mean = sum(0.99**age * s for age, s in zip(ages, history[i], strict=True))
                mean /= sum(0.99**age for age in ages)
                factor, load = 0.1, square / mean
            beta = momentum / (1 + factor * load)
            scaled = decayed[i] * (lr if lr_in_buffer else 1)
            if buffers[i] is None:
                buffers[i] = scaled.copy()
            else:
                buffers[i] = beta * buffers[i] + (1 - dampening) * scaled
            update = scaled + beta * buffers[i] if nesterov else buffers[i]
            params[i] = params[i] - (1 if lr_in_buffer else lr) * update
            betas[-1].append(beta)
    return params, betas


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 2**16),
    foreach=st.booleans(),
    skip_nonfinite=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "momentum": st.sampled_from([0.5, 0.9, 0.99]),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "adapt_factor": st.sampled_from([0, 0.01, 0.1, 5.0, "auto"]),
            "norm_scope": st.sampled_from(["tensor", "global"]),
            "lr_in_buffer": st.booleans(),
            "decay_in_norm": st.booleans(),
            "dampening": st.sampled_from([0.0, 0.25]),
            "nesterov": st.booleans(),
            "maximize": st.booleans(),
        }
    ).filter(lambda o: not (o["nesterov"] and o["dampening"])),
)
def test_every_reading_follows_its_equations(
    seed: int, foreach: bool, skip_nonfinite: bool, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape) for shape in SHAPES]
    grads = [[rng.normal(size=s) * 2.0 ** rng.integers(-4, 4) for s in SHAPES] for _ in range(6)]
    lrs = [0.05, 0.04, 0.1, 0.01, 0.02, 0.03]
    expected, betas = reference(start, grads, lrs, **options)

    params = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer = MuSGD(params, foreach=foreach, skip_nonfinite=skip_nonfinite, **options)
    sizes = [p.numel() for p in params]
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for param, grad in zip(params, grads[step], strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
        mean = optimizer.last_beta()
        assert mean is not None
        assert mean.item() == pytest.approx(np.average(betas[step], weights=sizes), rel=1e-6)
    for param, values in zip(params, expected, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), values, rtol=1e-9, atol=1e-12)


def beta_of(*grads: torch.Tensor, **options: Any) -> float:
    params = [torch.nn.Parameter(torch.zeros_like(g)) for g in grads]
    optimizer = MuSGD(params, **options)
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer.step()
    beta = optimizer.last_beta()
    assert beta is not None
    return beta.item()


def test_the_articles_example() -> None:
    """||g|| = 10, adapt_factor 0.1: 0.9 / 11, which the article rounds to 0.09."""
    assert beta_of(torch.tensor([6.0, 8.0])) == pytest.approx(0.0818182, abs=5e-8)


def test_the_scope_says_whose_norm() -> None:
    grads = torch.tensor([6.0]), torch.tensor([8.0])
    assert beta_of(*grads, norm_scope="global") == pytest.approx(0.9 / 11)
    own = (0.9 / (1 + 3.6) + 0.9 / (1 + 6.4)) / 2
    assert beta_of(*grads, norm_scope="tensor") == pytest.approx(own)


def test_the_global_norm_spans_groups_and_those_that_do_not_adapt_to_it() -> None:
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = MuSGD(
        [
            {"params": params[:1], "norm_scope": "global"},
            {"params": params[1:2], "adapt_factor": 0},
            {"params": params[2:], "norm_scope": "global", "momentum": 0.5},
        ]
    )
    for param, grad in zip(params, (2.0, 4.0, 4.0), strict=True):
        param.grad = torch.tensor([grad])  # the norm of all three is 6
    optimizer.step()
    mean = (0.9 / (1 + 3.6) + 0.9 + 0.5 / (1 + 3.6)) / 3
    assert optimizer.last_beta().item() == pytest.approx(mean)


def test_the_mean_beta_weighs_tensors_by_their_size() -> None:
    small, large = torch.full((1,), 10.0), torch.zeros(99)
    assert beta_of(small, large) == pytest.approx((0.9 / 11 + 99 * 0.9) / 100)


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("foreach", [True, False])
def test_norms_of_half_precision_are_taken_in_float32(
    dtype: torch.dtype, scope: str, foreach: bool
) -> None:
    """In half precision n² is inf from a norm of 256 on, and beta 0."""
    grad = torch.full((100,), 300.0, dtype=dtype)
    beta = beta_of(grad, adapt_factor=1e-7, norm_scope=scope, foreach=foreach)
    assert beta == pytest.approx(0.9 / 1.9, rel=1e-6)


def test_a_gradient_too_large_to_square_ends_momentum_and_nothing_else() -> None:
    assert beta_of(torch.full((4,), 1e25)) == 0


def test_lr_inside_and_outside_the_buffer_part_ways_under_a_schedule_only() -> None:
    def travel(lr_in_buffer: bool, lrs: list[float]) -> torch.Tensor:
        param = torch.nn.Parameter(torch.zeros(20))
        optimizer = MuSGD([param], lr_in_buffer=lr_in_buffer)
        generator = torch.Generator().manual_seed(0)
        for lr in lrs:
            optimizer.param_groups[0]["lr"] = lr
            param.grad = torch.randn(20, generator=generator) * 0.1 + 0.1
            optimizer.step()
        return param.detach()

    constant, falling = [0.01] * 40, [0.01 * 0.9**i for i in range(40)]
    torch.testing.assert_close(travel(True, constant), travel(False, constant), rtol=1e-5, atol=0)
    inside, outside = travel(True, falling), travel(False, falling)
    assert ((inside - outside).norm() / outside.norm()).item() > 0.05


def trajectory(scale: float, scope: str, steps: int = 30) -> tuple[list[torch.Tensor], list[float]]:
    """A quadratic, with its loss multiplied and its lr divided by ``scale``."""
    generator = torch.Generator().manual_seed(5)
    params = [torch.nn.Parameter(torch.randn(4, 3, generator=generator)) for _ in range(3)]
    optimizer = MuSGD(
        params, lr=0.05 / scale, weight_decay=0.0, adapt_factor="auto", norm_scope=scope
    )
    betas = []
    for _ in range(steps):
        noise = torch.randn(4, 3, generator=generator)
        loss = sum(((i + 1) * (p + noise).square()).sum() for i, p in enumerate(params)) * scale
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        betas.append(optimizer.last_beta().item())
    return [p.detach() for p in params], betas


@pytest.mark.parametrize("scope", ["tensor", "global"])
@pytest.mark.parametrize("scale", [2.0**16, 2.0**-10])
def test_auto_is_blind_to_powers_of_two_bit_for_bit(scope: str, scale: float) -> None:
    params, betas = trajectory(1.0, scope)
    scaled_params, scaled_betas = trajectory(scale, scope)
    assert betas == scaled_betas
    for param, scaled in zip(params, scaled_params, strict=True):
        assert torch.equal(param, scaled)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_auto_is_blind_to_other_scales_within_rounding(scope: str) -> None:
    assert trajectory(30.0, scope)[1] == pytest.approx(trajectory(1.0, scope)[1], rel=1e-5)


def test_the_mean_of_the_global_norm_moves_once_a_step_however_many_groups_share_it() -> None:
    def betas(groups: int) -> list[float]:
        params = [torch.nn.Parameter(torch.zeros(2)) for _ in range(4)]
        size = 4 // groups
        optimizer = MuSGD(
            [{"params": params[i : i + size]} for i in range(0, 4, size)],
            adapt_factor="auto",
            norm_scope="global",
        )
        seen = []
        for grad in (8.0, 1.0, 4.0, 2.0):
            for param in params:
                param.grad = torch.full((2,), grad)
            optimizer.step()
            seen.append(optimizer.last_beta().item())
        return seen

    assert betas(4) == pytest.approx(betas(1), rel=1e-6)


def test_auto_gives_a_gradient_of_usual_size_the_usual_beta_from_the_first_step() -> None:
    """Without bias correction the first n² would look a hundred times too large."""
    param = torch.nn.Parameter(torch.zeros(10))
    optimizer = MuSGD([param], adapt_factor="auto")
    for _ in range(5):
        param.grad = torch.full((10,), 123.0)
        optimizer.step()
        assert optimizer.last_beta().item() == pytest.approx(0.9 / 1.1, rel=1e-6)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_auto_keeps_full_momentum_where_gradients_have_only_been_zero(scope: str) -> None:
    """0 / 0: YOLO26 has tensors whose gradients never come."""
    beta = beta_of(torch.zeros(8), adapt_factor="auto", norm_scope=scope)
    assert beta == pytest.approx(0.9)


def test_the_functional_form_takes_a_momentum_for_each_tensor() -> None:
    params = [torch.ones(3), torch.ones(2)]
    grads = [torch.full((3,), 1.0), torch.full((2,), 1.0)]
    buffers: list[torch.Tensor | None] = [torch.full((3,), 10.0), torch.full((2,), 10.0)]
    musgd(
        params,
        grads,
        buffers,
        lr=0.1,
        momentum=torch.tensor([0.5, 0.0]),
        weight_decay=0.0,
        lr_in_buffer=False,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )
    assert [buffer[0].item() for buffer in buffers] == [6.0, 1.0]
    assert [param[0].item() for param in params] == pytest.approx([0.4, 0.9])


def test_the_functional_form_refuses_buffers_that_are_half_there() -> None:
    with pytest.raises(ValueError, match="both"):
        musgd(
            [torch.ones(1), torch.ones(1)],
            [torch.ones(1), torch.ones(1)],
            [None, torch.ones(1)],
            lr=0.1,
            momentum=0.9,
            weight_decay=0.0,
            lr_in_buffer=False,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


@pytest.mark.parametrize(
    "options, said",
    [
        ({"lr": -0.5}, "-0.5"),
        ({"lr": math.nan}, "nan"),
        ({"lr": torch.ones(2)}, r"\(2,\)"),
        ({"momentum": -0.1}, "-0.1"),
        ({"weight_decay": -1.0}, "-1.0"),
        ({"adapt_factor": -0.2}, "-0.2"),
        ({"adapt_factor": math.inf}, "inf"),
        ({"adapt_factor": "automatic"}, "'automatic'"),
        ({"norm_scope": "layer"}, "'layer'"),
        ({"nesterov": True, "momentum": 0.0}, "momentum=0.0"),
        ({"nesterov": True, "dampening": 0.5}, "dampening=0.5"),
    ],
)
def test_options_out_of_range_are_refused_with_their_value(
    options: dict[str, Any], said: str
) -> None:
    param = torch.nn.Parameter(torch.zeros(2))
    with pytest.raises(ValueError, match=said):
        MuSGD([param], **options)
    optimizer = MuSGD([param])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(2))], **options})
    assert len(optimizer.param_groups) == 1
