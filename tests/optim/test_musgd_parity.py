"""``adapt_factor=0`` is ``torch.optim.SGD``, bit for bit; foreach is the loop, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from musgd_cli.optim import MuSGD  # noqa: E402

SHAPES = [(8, 3, 3, 3), (16,), (4, 5), (), (200, 1000), (7,)]
"""One is larger than a span of the multi-tensor form; one has no dimension."""


HALF = (torch.float16, torch.bfloat16)


def weights(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def set_grads(params: list[torch.nn.Parameter], step: int, poison: float | None = None) -> None:
    """Gradients that depend on the step alone, in new tensors, as backward makes them."""
    generator = torch.Generator().manual_seed(1000 + step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    if poison is not None:
        params[1].grad[2] = poison


def assert_same(ours: torch.optim.Optimizer, theirs: torch.optim.Optimizer) -> None:
    for group, other in zip(ours.param_groups, theirs.param_groups, strict=True):
        for p, q in zip(group["params"], other["params"], strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=0, equal_nan=True)
            buffer = ours.state[p].get("momentum_buffer")
            expected = theirs.state[q].get("momentum_buffer")
            assert (buffer is None) == (expected is None)
            if buffer is not None:
                torch.testing.assert_close(buffer, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.0},
        {"dampening": 0.3},
        {"nesterov": True},
        {"maximize": True},
        {"nesterov": True, "maximize": True},
    ],
    ids=str,
)
def test_without_adaption_every_step_is_sgds(
    foreach: bool, weight_decay: float, options: dict[str, Any]
) -> None:
    options = {"lr": 0.05, "momentum": 0.9, "weight_decay": weight_decay, **options}
    ours, theirs = weights(), weights()
    optimizer = MuSGD(ours, adapt_factor=0, foreach=foreach, **options)
    sgd = torch.optim.SGD(theirs, foreach=foreach, **options)
    for step in range(25):
        for group in (optimizer.param_groups[0], sgd.param_groups[0]):
            group["lr"] = 0.05 * (1 + math.cos(step))
        set_grads(ours, step)
        set_grads(theirs, step)
        optimizer.step()
        sgd.step()
    assert_same(optimizer, sgd)


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("foreach", [True, False])
def test_without_adaption_bad_values_spread_as_in_sgd(foreach: bool, poison: float) -> None:
    ours, theirs = weights(), weights()
    optimizer = MuSGD(ours, adapt_factor=0, foreach=foreach)
    sgd = torch.optim.SGD(theirs, 0.01, 0.9, weight_decay=5e-4, foreach=foreach)
    for step in range(6):
        set_grads(ours, step, poison if step == 2 else None)
        set_grads(theirs, step, poison if step == 2 else None)
        optimizer.step()
        sgd.step()
    assert not all(p.isfinite().all() for p in ours)
    assert_same(optimizer, sgd)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64])
def test_by_default_every_dtype_is_sgds(dtype: torch.dtype) -> None:
    ours = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    theirs = [torch.nn.Parameter(p.detach().to(dtype)) for p in weights()]
    optimizer = MuSGD(ours, adapt_factor=0, nesterov=True)
    sgd = torch.optim.SGD(theirs, 0.01, 0.9, weight_decay=5e-4, nesterov=True)
    for step in range(5):
        for params in (ours, theirs):
            for p, like in zip(params, weights(step), strict=True):
                p.grad = like.detach().to(dtype)
        optimizer.step()
        sgd.step()
    assert_same(optimizer, sgd)


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_tensor_lr_is_sgds(shape: tuple[int, ...]) -> None:
    ours, theirs = weights(), weights()
    lr = torch.full(shape, 0.03)
    optimizer = MuSGD(ours, lr=lr, adapt_factor=0, foreach=True)
    sgd = torch.optim.SGD(theirs, lr=lr.clone(), momentum=0.9, weight_decay=5e-4, foreach=True)
    for step in range(5):
        set_grads(ours, step)
        set_grads(theirs, step)
        lr.mul_(0.9)
        sgd.param_groups[0]["lr"].mul_(0.9)
        optimizer.step()
        sgd.step()
    assert_same(optimizer, sgd)


def mixed() -> list[torch.nn.Parameter]:
    """Every dtype and layout a model may hold, some twice."""
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    tensors = [
        draw(6, 4),
        draw(5).double(),
        draw(4, 4).bfloat16(),
        draw(3, 2).half(),
        draw(4, 3, 5, 5).to(memory_format=torch.channels_last),
        draw(6, 8).t(),
        draw(10, 10)[::2, 1::3],
        draw(()),
        draw(()).bfloat16(),
        draw(0, 3),
        draw(7).double(),
        torch.view_as_complex(draw(5, 2)),
        draw(9),  # never gets a gradient
        draw(11),  # gets zeros
    ]
    return [torch.nn.Parameter(tensor) for tensor in tensors]


def set_mixed_grads(params: list[torch.nn.Parameter], step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for i, param in enumerate(params):
        if i == 12 or (i == 0 and step == 0):  # the first has its first gradient late
            param.grad = None
        elif i == 13:
            param.grad = torch.zeros_like(param)
        else:
            param.grad = torch.empty_like(param)
            param.grad.copy_(torch.randn(param.shape, generator=generator, dtype=param.dtype))


OPTIONS = {
    "adapt_factor": st.sampled_from([0, 0.1, 3.0, "auto"]),
    "norm_scope": st.sampled_from(["tensor", "global"]),
    "lr_in_buffer": st.booleans(),
    "decay_in_norm": st.booleans(),
    "nesterov": st.booleans(),
    "maximize": st.booleans(),
    "weight_decay": st.sampled_from([0.0, 0.02]),
    "skip_nonfinite": st.booleans(),
}


@settings(deadline=None, max_examples=60)
@given(options=st.fixed_dictionaries(OPTIONS), other=st.fixed_dictionaries(OPTIONS))
def test_lists_and_loop_agree_bit_for_bit(options: dict[str, Any], other: dict[str, Any]) -> None:
    """Over two groups, each with options of its own."""
    runs = []
    for foreach in (True, False):
        params = mixed()
        optimizer = MuSGD(
            [
                {"params": params[::2], **options},
                {"params": params[1::2], **other, "momentum": 0.7, "lr": 0.2},
            ],
            foreach=foreach,
        )
        betas = []
        for step in range(4):
            set_mixed_grads(params, step)
            optimizer.step()
            betas.append(optimizer.last_beta())
        buffers = [optimizer.state[p].get("momentum_buffer", torch.zeros(0)) for p in params]
        runs.append((params, buffers, betas))
    (params, buffers, betas), (looped_params, looped_buffers, looped_betas) = runs
    assert betas == looped_betas
    for i, param in enumerate(params):
        # torch's own two forms of SGD part here: _foreach_mul_ rounds a scalar to half precision.
        rounds = param.dtype in HALF and (other if i % 2 else options)["adapt_factor"] == 0
        for listed, looped in (param, looped_params[i]), (buffers[i], looped_buffers[i]):
            assert listed.dtype == looped.dtype
            assert listed.isfinite().all()
            tolerance = 0.02 if rounds else 0
            torch.testing.assert_close(listed, looped, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("options", [{}, {"nesterov": True}, {"skip_nonfinite": True}], ids=str)
def test_gradients_are_left_as_they_are(options: dict[str, Any], foreach: bool) -> None:
    """torch's own multi-tensor Nesterov writes into ``.grad`` where nothing decays; a loop that
    accumulates or logs gradients would see it."""
    params = weights()
    optimizer = MuSGD(params, weight_decay=0.0, foreach=foreach, **options)
    for step in range(3):
        set_grads(params, step, math.nan if step == 2 else None)
        before = [p.grad.clone() for p in params]
        optimizer.step()
        for param, grad in zip(params, before, strict=True):
            torch.testing.assert_close(param.grad, grad, rtol=0, atol=0, equal_nan=True)
