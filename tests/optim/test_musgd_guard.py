"""Steps that are not finite, and steps that do not wait for the device."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from musgd_cli.optim import MuSGD  # noqa: E402

KINDS = [
    {},
    {"adapt_factor": 0},
    {"adapt_factor": 0, "nesterov": True},
    {"nesterov": True, "weight_decay": 0.0},
    {"norm_scope": "global", "nesterov": True},
    {"adapt_factor": "auto", "lr_in_buffer": True},
    {"adapt_factor": "auto", "norm_scope": "global", "maximize": True},
    {"decay_in_norm": True},
    {"momentum": 0.0},
    {"second_moment": "rowcol", "adapt_factor": 0, "nesterov": True},
    {"second_moment": "rowcol", "adapt_factor": "auto", "maximize": True},
]


def build(**options: Any) -> tuple[list[torch.nn.Parameter], MuSGD]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (7,), ()]
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    return params, MuSGD([{"params": params[:1]}, {"params": params[1:]}], **options)


def set_grads(params: list[torch.nn.Parameter], step: int, poison: float | None = None) -> None:
    generator = torch.Generator().manual_seed(step)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    if poison is not None:
        params[1].grad[3] = poison


def snapshot(params: list[torch.nn.Parameter], optimizer: MuSGD) -> list[torch.Tensor]:
    state = copy.deepcopy(optimizer.state_dict()["state"])
    values = [
        value for entry in state.values() for k, value in entry.items() if k != "skipped_steps"
    ]
    return [p.detach().clone() for p in params] + values


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_bad_gradient_changes_nothing_and_is_counted(
    options: dict[str, Any], poison: float, foreach: bool
) -> None:
    """It stands in the second group; the first group's parameters must not move either."""
    params, optimizer = build(skip_nonfinite=True, foreach=foreach, **options)
    for step in range(3):
        set_grads(params, step)
        optimizer.step()
    before = snapshot(params, optimizer)
    for step in (3, 4):
        set_grads(params, step, poison)
        optimizer.step()
        assert optimizer.last_beta().isnan()
    for now, then in zip(snapshot(params, optimizer), before, strict=True):
        assert torch.equal(now, then)
    assert optimizer.skipped_steps.item() == 2
    set_grads(params, 5)
    optimizer.step()
    assert all(p.isfinite().all() for p in params)
    assert optimizer.skipped_steps.item() == 2


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_the_steps_around_a_bad_one_are_those_of_a_run_without_it(options: dict[str, Any]) -> None:
    """From the very first step on."""
    params, optimizer = build(skip_nonfinite=True, **options)
    twins, twin = build(**options)
    for step in range(6):
        if step in (0, 3):
            set_grads(params, 100, math.nan)
            optimizer.step()
        set_grads(params, step)
        optimizer.step()
        set_grads(twins, step)
        twin.step()
    for param, other in zip(params, twins, strict=True):
        torch.testing.assert_close(param, other, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["host", "device"])
@pytest.mark.parametrize("total_norm", [math.nan, math.inf])
def test_a_total_norm_that_is_not_finite_skips_the_step_unasked(
    total_norm: float, kind: str
) -> None:
    """After a clip by an infinite norm the finite gradients are zero, and look harmless."""
    params, optimizer = build(adapt_factor="auto")
    set_grads(params, 0)
    optimizer.step()
    before = snapshot(params, optimizer)
    set_grads(params, 1)
    optimizer.step(total_norm=total_norm if kind == "host" else torch.tensor(total_norm))
    assert all(map(torch.equal, snapshot(params, optimizer), before))
    assert optimizer.skipped_steps.item() == 1
    assert optimizer.last_beta().isnan()
    set_grads(params, 2)
    optimizer.step(total_norm=3.0 if kind == "host" else torch.tensor(3.0))
    assert optimizer.skipped_steps.item() == 1
    assert optimizer.last_beta().isfinite()


@pytest.mark.parametrize("total_norm", [10.0, torch.tensor(10.0), torch.tensor([10.0])])
def test_a_given_total_norm_decides_the_global_beta(total_norm: Any) -> None:
    """It is the norm before the clip, which the gradients no longer show."""
    params, optimizer = build(norm_scope="global")
    set_grads(params, 0)
    optimizer.step(total_norm=total_norm)
    assert optimizer.last_beta().item() == pytest.approx(0.9 / 11)


def test_a_given_total_norm_leaves_each_tensors_own_beta_alone() -> None:
    params, optimizer = build()
    set_grads(params, 0)
    optimizer.step()
    own = optimizer.last_beta()
    optimizer.step(total_norm=1e6)
    assert optimizer.last_beta() == own


@pytest.mark.parametrize("total_norm, said", [(-2.0, "-2.0"), (torch.ones(3), r"\(3,\)")])
def test_a_total_norm_that_cannot_be_one_is_refused(total_norm: Any, said: str) -> None:
    params, optimizer = build()
    set_grads(params, 0)
    with pytest.raises(ValueError, match=said):
        optimizer.step(total_norm=total_norm)


def test_the_count_of_skipped_steps_is_part_of_the_state() -> None:
    params, optimizer = build(skip_nonfinite=True)
    assert optimizer.skipped_steps.item() == 0
    params[0].data = params[0].data.half()  # whose dtype torch would cast the count to
    set_grads(params[1:], 0, None)
    for _ in range(3):
        optimizer.step(total_norm=math.inf)
    others, other = build(skip_nonfinite=True)
    others[0].data = others[0].data.half()
    other.load_state_dict(optimizer.state_dict())
    assert other.skipped_steps.item() == 3
    assert other.skipped_steps.dtype == torch.int64


class NoReading(TorchDispatchMode):
    """Fails on whatever brings a value to the host, or from a device to the CPU."""

    READS = ("_local_scalar_dense", "is_nonzero", "item", "nonzero", "equal", "is_pinned")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in self.READS, f"{name} waits for the device"
        out = func(*args, **(kwargs or {}))
        devices = {t.device.type for t in tree_leaves(args) if isinstance(t, torch.Tensor)}
        if "cuda" in devices:
            outs = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
            assert all(t.device.type == "cuda" for t in outs), f"{name} copies to the host"
        return out


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("skip_nonfinite", [True, False])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_no_step_reads_a_value_on_the_host(
    options: dict[str, Any], skip_nonfinite: bool, foreach: bool | None
) -> None:
    params, optimizer = build(skip_nonfinite=skip_nonfinite, foreach=foreach, **options)
    for step in range(3):
        set_grads(params, step)
        norm = torch.tensor(2.0)
        with NoReading():
            optimizer.step()
            optimizer.step(total_norm=norm)
            optimizer.step(total_norm=2.0)
            optimizer.last_beta()


@pytest.mark.parametrize("foreach", [None, False])
@pytest.mark.parametrize("skip_nonfinite", [True, False])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_no_step_waits_for_a_gpu(
    options: dict[str, Any], skip_nonfinite: bool, foreach: bool | None
) -> None:
    """On fake CUDA tensors, which have no values: the paths that a GPU takes, on any machine."""
    with FakeTensorMode(), NoReading():
        shapes = {(3, 4): torch.float32, (5,): torch.bfloat16, (2,): torch.float64}
        params = [
            torch.nn.Parameter(torch.empty(s, device="cuda", dtype=d)) for s, d in shapes.items()
        ]
        optimizer = MuSGD(params, skip_nonfinite=skip_nonfinite, foreach=foreach, **options)
        for total_norm in (None, torch.empty((), device="cuda"), 2.0, math.inf):
            for param in params:
                param.grad = torch.empty_like(param)
            optimizer.step(total_norm=total_norm)
            assert optimizer.last_beta().device.type == "cuda"


def test_the_guard_itself_catches_a_read() -> None:
    with pytest.raises(AssertionError, match="waits"), NoReading():
        bool(torch.tensor(1.0) > 0)
    with pytest.raises(AssertionError, match="copies"), FakeTensorMode(), NoReading():
        torch.empty(2, device="cuda").cpu()
    with pytest.raises(DataDependentOutputException), FakeTensorMode():
        torch.empty((), device="cuda").item()


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_under_a_grad_scaler_the_norm_is_that_of_the_unscaled_gradients(
    options: dict[str, Any],
) -> None:
    """Of scaled ones beta would be about 1e-9. The scale is a power of two: nothing rounds."""
    params, optimizer = build(**options)
    twins, twin = build(**options)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=1000)
    for step in range(4):
        set_grads(params, step)
        set_grads(twins, step)
        for param in params:
            param.grad = scaler.scale(param.grad)
        if step % 2:
            scaler.unscale_(optimizer)
            norm = torch.nn.utils.clip_grad_norm_(params, 1e9)
            scaler.step(optimizer, total_norm=norm.item())
        else:
            scaler.step(optimizer)
        scaler.update()
        twin.step()
    for param, other in zip(params, twins, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-6, atol=0)


def test_a_grad_scaler_skips_an_overflow_itself() -> None:
    params, optimizer = build()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14)
    before = [p.detach().clone() for p in params]
    set_grads(params, 0, math.inf)
    for param in params:
        param.grad = scaler.scale(param.grad)
    scaler.step(optimizer)
    scaler.update()
    assert all(map(torch.equal, params, before))
    assert scaler.get_scale() == 2.0**13
