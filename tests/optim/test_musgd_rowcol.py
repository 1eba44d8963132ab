"""``second_moment="rowcol"``: its equations, its scale, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import math
import pickle
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from musgd_cli.optim import MuSGD  # noqa: E402

SHAPES = [(8, 3, 3, 3), (5, 4), (), (7,), (8, 3, 3, 3), (1, 6), (6, 1), (4, 3, 2), (7,), (1,)]
"""Every number of dimensions, some twice, one row, one column; out of order."""


def draw(seed: int, shapes: list[tuple[int, ...]], dtype: Any = torch.float32) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes
    ]


def build(**options: Any) -> tuple[list[torch.nn.Parameter], MuSGD]:
    dtype = options.pop("dtype", torch.float32)
    shapes = options.pop("shapes", SHAPES)
    params = [torch.nn.Parameter(value) for value in draw(0, shapes, dtype)]
    options = {"second_moment": "rowcol", "adapt_factor": 0, "nesterov": True, **options}
    return params, MuSGD(params, **options)


def take_steps(
    params: list[torch.nn.Parameter], optimizer: MuSGD, steps: range, scale: float = 1.0
) -> None:
    for step in steps:
        values = draw(100 + step, [tuple(p.shape) for p in params])
        for param, value in zip(params, values, strict=True):
            param.grad = (value * scale).to(param.dtype)
        optimizer.step()


def everything(params: list[torch.nn.Parameter], optimizer: MuSGD) -> list[torch.Tensor]:
    state = [optimizer.state[p][name] for p in params for name in sorted(optimizer.state[p])]
    return [value.detach().clone() for value in (*params, *state)]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == other.dtype
        assert torch.equal(mine, other)


# ---------------------------------------------------------------------------------- the equations


def reference(
    start: list[np.ndarray],
    grads: list[list[np.ndarray]],
    lrs: list[float],
    *,
    momentum: float,
    weight_decay: float,
    adapt_factor: float | str,
    nesterov: bool,
    maximize: bool,
) -> list[np.ndarray]:
    """The docstring's equations in float64, one value after another where that is clearest."""
    params = [p.copy() for p in start]
    v = [np.zeros_like(p) for p in params]
    gone: list[list[Any]] = [[] for _ in params]  # what the running means are of
    norms: list[list[float]] = [[] for _ in params]

    def running_mean(values: list[Any]) -> Any:
        shares = [0.99**age for age in range(len(values) - 1, -1, -1)]
        return sum(s * x for s, x in zip(shares, values, strict=True)) / sum(shares)

    for step, lr in enumerate(lrs):
        for i, p in enumerate(params):
            g = -grads[step][i] if maximize else grads[step][i]
            norms[i].append(float((g**2).sum()))
            load = adapt_factor
            if adapt_factor == "auto":
                mean = running_mean(norms[i])
                load = 0.1 / mean if mean > 0 else 0.0
            beta = momentum / (1 + load * norms[i][-1])
            v[i] = beta * v[i] + g
            x = g + beta * v[i] if nesterov else v[i]
            if momentum == 0:
                x = g
            if p.ndim < 2:
                gone[i].append(g**2)
                s = running_mean(gone[i])
                root = np.sqrt(np.where(s > 0, s, 1.0))
                update = (1 - beta) * x / root
            else:
                flat = x.reshape(x.shape[0], -1)
                rows, columns = flat.shape
                gone[i].append((flat**2).mean())
                e = running_mean(gone[i])
                update = np.zeros_like(flat)
                r = np.array([(flat[a] ** 2).mean() + 0.01 * e for a in range(rows)])
                if r.max() > 0:
                    for b in range(columns):
                        c = np.mean([flat[a, b] ** 2 / r[a] for a in range(rows)]) + 0.01
                        for a in range(rows):
                            update[a, b] = flat[a, b] / math.sqrt(r[a] * c * columns)
                update = update.reshape(p.shape)
            params[i] = p - lr * (update + weight_decay * p)
    return params


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    foreach=st.booleans(),
    skip_nonfinite=st.booleans(),
    options=st.fixed_dictionaries(
        {
            "momentum": st.sampled_from([0.0, 0.5, 0.9]),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "adapt_factor": st.sampled_from([0, 0.1, "auto"]),
            "nesterov": st.booleans(),
            "maximize": st.booleans(),
        }
    ).filter(lambda o: o["momentum"] or not o["nesterov"]),
)
def test_every_step_follows_the_equations(
    seed: int, foreach: bool, skip_nonfinite: bool, options: dict[str, Any]
) -> None:
    rng = np.random.default_rng(seed)
    start = [rng.normal(size=shape) for shape in SHAPES]
    grads = [[rng.normal(size=s) * 2.0 ** rng.integers(-4, 4) for s in SHAPES] for _ in range(5)]
    lrs = [0.05, 0.04, 0.1, 0.01, 0.02]
    expected = reference(start, grads, lrs, **options)
    params = [torch.nn.Parameter(torch.tensor(p)) for p in start]
    optimizer = MuSGD(
        params, second_moment="rowcol", foreach=foreach, skip_nonfinite=skip_nonfinite, **options
    )
    for step, lr in enumerate(lrs):
        optimizer.param_groups[0]["lr"] = lr
        for param, grad in zip(params, grads[step], strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
    for param, values in zip(params, expected, strict=True):
        np.testing.assert_allclose(param.detach().numpy(), values, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", [{}, {"adapt_factor": "auto"}, {"skip_nonfinite": True}])
@pytest.mark.parametrize("nesterov", [True, False])
def test_lists_and_loop_take_the_same_steps(options: dict[str, Any], nesterov: bool) -> None:
    """On more values of one shape than a span holds, on several layouts, with late gradients."""
    shapes = [*SHAPES, (300, 300), (300, 300), (300, 300), (600, 300)]
    ends = []
    for foreach in (True, False):
        params, optimizer = build(shapes=shapes, nesterov=nesterov, foreach=foreach, **options)
        with torch.no_grad():
            params[0].data = params[0].data.to(memory_format=torch.channels_last)
            params[1].data = params[1].data.t().contiguous().t()
        for step in range(4):
            for i, (param, grad) in enumerate(zip(params, draw(step, shapes), strict=True)):
                late = (i == 4 and step < 2) or i == 12
                param.grad = None if late else torch.empty_like(param).copy_(grad)
            optimizer.step()
        ends.append(params)
    for param, other in zip(*ends, strict=True):
        torch.testing.assert_close(param, other, rtol=1e-5, atol=1e-7)
    assert torch.equal(ends[0][12], draw(0, shapes)[12])


@pytest.mark.parametrize("foreach", [True, False])
def test_channels_last_is_a_layout_and_not_another_update(foreach: bool) -> None:
    plain, ours = build(shapes=[(8, 3, 3, 3), (4, 8, 3, 3)], foreach=foreach)
    other, theirs = build(shapes=[(8, 3, 3, 3), (4, 8, 3, 3)], foreach=foreach)
    for param in other:
        param.data = param.data.to(memory_format=torch.channels_last)
    for step in range(3):
        for params in (plain, other):
            for p, g in zip(params, draw(step, [tuple(p.shape) for p in params]), strict=True):
                p.grad = torch.empty_like(p).copy_(g)
        ours.step()
        theirs.step()
    for p, q in zip(plain, other, strict=True):
        assert q.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-7)


# ------------------------------------------------------------------------------------- the scale


@pytest.mark.parametrize("options", [{}, {"adapt_factor": "auto"}, {"nesterov": False}], ids=str)
@pytest.mark.parametrize("foreach", [True, False])
@settings(deadline=None, max_examples=15)
@given(power=st.integers(-20, 30))
def test_a_power_of_two_on_the_loss_changes_no_bit(
    foreach: bool, options: dict[str, Any], power: int
) -> None:
    params, optimizer = build(foreach=foreach, **options)
    scaled, other = build(foreach=foreach, **options)
    take_steps(params, optimizer, range(4))
    take_steps(scaled, other, range(4), scale=2.0**power)
    assert_same(params, scaled)


@pytest.mark.parametrize("foreach", [True, False])
@settings(deadline=None, max_examples=15)
@given(scale=st.floats(1e-6, 1e6))
def test_any_other_scale_changes_nothing_but_rounding(foreach: bool, scale: float) -> None:
    params, optimizer = build(foreach=foreach, adapt_factor="auto")
    scaled, other = build(foreach=foreach, adapt_factor="auto")
    take_steps(params, optimizer, range(4))
    take_steps(scaled, other, range(4), scale=scale)
    for param, value in zip(params, scaled, strict=True):
        torch.testing.assert_close(param, value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("shape", [(6, 4), (16, 32, 3, 3), (5,), ()])
def test_gradients_that_have_only_been_zero_leave_all_but_the_decay(
    shape: tuple[int, ...], foreach: bool
) -> None:
    """0 / 0: YOLO26 has tensors whose gradients never come."""
    param = torch.nn.Parameter(torch.ones(shape))
    optimizer = MuSGD([param], lr=0.5, weight_decay=0.5, second_moment="rowcol", foreach=foreach)
    for step in range(1, 4):
        param.grad = torch.zeros(shape)
        optimizer.step()
        torch.testing.assert_close(param.detach(), torch.full(shape, 0.75**step))


@pytest.mark.parametrize("foreach", [True, False])
def test_a_tensor_whose_gradients_stop_comes_to_rest(foreach: bool) -> None:
    """What is left in the buffer would, without the floor, go on at full speed until it rounds to
    nothing, hundreds of steps later."""
    param = torch.nn.Parameter(torch.zeros(16, 12))
    optimizer = MuSGD(
        [param], 0.01, weight_decay=0, second_moment="rowcol", adapt_factor=0, foreach=foreach
    )
    travel = []
    for step in range(160):
        before = param.detach().clone()
        param.grad = draw(step, [(16, 12)])[0] if step < 100 else torch.zeros(16, 12)
        optimizer.step()
        travel.append((param - before).norm().item())
    assert travel[159] < travel[99] / 2
    assert travel[159] < travel[130]


@pytest.mark.parametrize("foreach", [True, False])
def test_one_step_moves_every_row_and_column_alike(foreach: bool) -> None:
    """Rows and columns of gradients a thousand times apart: the reason for this update."""
    param = torch.nn.Parameter(torch.zeros(32, 24))
    optimizer = MuSGD([param], 1.0, weight_decay=0, second_moment="rowcol", foreach=foreach)
    sizes = torch.logspace(-1, 1, 32).unsqueeze(1) * torch.logspace(0.5, -0.5, 24)
    param.grad = draw(1, [(32, 24)])[0] * sizes
    optimizer.step()
    rows, columns = param.detach().norm(dim=1), param.detach().norm(dim=0)
    assert rows[16:].max() / rows[16:].min() < 2
    assert columns.max() / columns.min() < 2
    assert (param.grad.norm(dim=0).max() / param.grad.norm(dim=0).min()) > 5


# ------------------------------------------------------------------------------ dtypes and shapes


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype, foreach: bool) -> None:
    """In half precision the squares of 1000 are inf, and nothing would move."""
    params, optimizer = build(dtype=dtype, foreach=foreach, weight_decay=0.0, lr=1.0)
    full, twin = build(foreach=foreach, weight_decay=0.0, lr=1.0)
    for p, q in zip(params, full, strict=True):
        q.data.copy_(p.data)
    take_steps(params, optimizer, range(1), scale=1000.0)
    take_steps(full, twin, range(1), scale=1000.0)
    for p, q in zip(params, full, strict=True):
        assert p.dtype == optimizer.state[p]["momentum_buffer"].dtype == dtype
        assert optimizer.state[p]["exp_avg_sq"].dtype == torch.float32
        torch.testing.assert_close(p.float(), q, rtol=0.02, atol=0.02)


def test_complex_parameters_are_refused_with_their_shape() -> None:
    param = torch.nn.Parameter(torch.zeros(3, 2, dtype=torch.complex64))
    optimizer = MuSGD([param], second_moment="rowcol")
    param.grad = torch.ones_like(param)
    with pytest.raises(RuntimeError, match=r"complex.*\(3, 2\).*'none'"):
        optimizer.step()


@pytest.mark.parametrize(
    "option", [{"dampening": 0.1}, {"lr_in_buffer": True}, {"norm_scope": "global"}], ids=str
)
def test_what_it_does_not_know_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        MuSGD([torch.nn.Parameter(torch.zeros(2))], second_moment="rowcol", **option)


@pytest.mark.parametrize("foreach", [True, False])
def test_empty_tensors_and_missing_gradients_are_passed_over(foreach: bool) -> None:
    params, optimizer = build(shapes=[(0, 3), (3, 0), (0,), (2, 2), (2, 2)], foreach=foreach)
    before = params[4].detach().clone()
    for param in params[:4]:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert torch.equal(params[4], before)
    assert params[3].isfinite().all()


def test_gradients_are_left_as_they_are() -> None:
    params, optimizer = build()
    take_steps(params, optimizer, range(2))
    grads = [p.grad.clone() for p in params]
    optimizer.step()
    assert_same([p.grad for p in params], grads)


# --------------------------------------------------------------------------------------- the state


@pytest.mark.parametrize("shapes", ["yolo26n"])
def test_the_state_is_sgds_and_two_hundredths_at_most(shapes: str) -> None:
    pytest.importorskip("ultralytics")
    from musgd_cli.lab import step_cost

    model = step_cost.model_parameters()
    params, optimizer = build(shapes=[tuple(p.shape) for p in model])
    take_steps(params, optimizer, range(1))
    held = [t for state in optimizer.state.values() for t in state.values()]
    size = sum(t.numel() * t.element_size() for t in held)
    assert size <= 1.02 * sum(p.numel() * p.element_size() for p in params)
    memory = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    assert sum(memory.values()) == size  # views of one block: nothing else is kept alive


KINDS = [
    {},
    {"foreach": False},
    {"adapt_factor": "auto"},
    {"adapt_factor": "auto", "skip_nonfinite": True},
    {"momentum": 0.0, "nesterov": False},
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    params, optimizer = build(dtype=dtype, **options)
    take_steps(params, optimizer, range(3))
    file = io.BytesIO()
    torch.save({"weights": [p.detach() for p in params], "state": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    take_steps(params, optimizer, range(3, 6))

    others, other = build(dtype=dtype, **options)
    take_steps(others, other, range(50, 51))  # has blocks of its own, which must be forgotten
    for param, weight in zip(others, saved["weights"], strict=True):
        param.data.copy_(weight)
    other.load_state_dict(saved["state"])
    take_steps(others, other, range(3, 6))
    assert_same(everything(params, optimizer), everything(others, other))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_pickle_and_deepcopy_go_on_alike_and_apart(options: dict[str, Any]) -> None:
    params, optimizer = build(**options)
    take_steps(params, optimizer, range(2))
    pickled = pickle.loads(pickle.dumps((params, optimizer)))
    copied = copy.deepcopy((params, optimizer))
    take_steps(params, optimizer, range(2, 4))
    for others, other in (pickled, copied):
        take_steps(others, other, range(2, 4))
        assert_same(everything(params, optimizer), everything(others, other))


def test_a_checkpoint_is_not_moved_by_who_wrote_or_loaded_it() -> None:
    params, optimizer = build()
    take_steps(params, optimizer, range(2))
    checkpoint = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(checkpoint["state"])
    others, other = build()
    other.load_state_dict(checkpoint)
    take_steps(others, other, range(2))
    for key, state in before.items():
        for name, value in state.items():
            assert torch.equal(checkpoint["state"][key][name], value), name


def test_the_running_means_survive_ultralytics_checkpoints() -> None:
    """Which halve all float32 state but what is called step, exp_avg, exp_avg_sq or square_avg."""
    params, optimizer = build(lr=1e-3)
    take_steps(params, optimizer, range(4), scale=2000.0)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    for state in checkpoint["state"].values():
        state["momentum_buffer"] = state["momentum_buffer"].half()
    others, other = build(lr=1e-3)
    for mine, theirs in zip(params, others, strict=True):
        theirs.data.copy_(mine.data)
    other.load_state_dict(checkpoint)
    for mine, theirs in zip(params, others, strict=True):
        for name in ("exp_avg_sq", "step"):
            assert torch.equal(optimizer.state[mine][name], other.state[theirs][name])
    take_steps(params, optimizer, range(4, 6), scale=2000.0)
    take_steps(others, other, range(4, 6), scale=2000.0)
    for mine, theirs in zip(params, others, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sgd", "none"])
def test_it_goes_on_from_a_checkpoint_without_running_means(kind: str) -> None:
    params, optimizer = build(momentum=0.8)
    twins = [torch.nn.Parameter(p.detach().clone()) for p in params]
    first = (
        torch.optim.SGD(twins, lr=0.25, momentum=0.9)
        if kind == "sgd"
        else MuSGD(twins, lr=0.25, adapt_factor=0)
    )
    take_steps(twins, first, range(3))
    checkpoint = first.state_dict()
    if kind == "none":  # its options are those of the form it had
        for group in checkpoint["param_groups"]:
            group["second_moment"] = "rowcol"
    optimizer.load_state_dict(checkpoint)
    assert optimizer.param_groups[0]["second_moment"] == "rowcol"
    buffer = first.state[twins[1]]["momentum_buffer"]
    take_steps(params, optimizer, range(1))
    expected = 0.9 * buffer + params[1].grad
    torch.testing.assert_close(optimizer.state[params[1]]["momentum_buffer"], expected)
    assert all(p.isfinite().all() for p in params)


# --------------------------------------------------------------------------------------- the guard


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("factor", [0, "auto"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_bad_step_changes_nothing_and_the_next_is_as_if_it_had_not_been(
    poison: float, factor: Any, foreach: bool
) -> None:
    """The running means and their ages included; at the very first step, too."""
    options = {"adapt_factor": factor, "foreach": foreach}
    params, optimizer = build(skip_nonfinite=True, **options)
    twins, twin = build(**options)
    for step in range(4):
        values = draw(9, [tuple(p.shape) for p in params])
        values[step][...] = poison
        for param, value in zip(params, values, strict=True):
            param.grad = value
        before = [p.detach().clone() for p in params]
        state = everything(params, optimizer)[len(params) :] if step else []
        optimizer.step()
        assert_same([p.detach() for p in params], before)
        after = everything(params, optimizer)[len(params) :]
        counts = [optimizer.skipped_steps]
        if step:  # the count of skipped steps is the one thing that moved
            moved = [not torch.equal(a, b) for a, b in zip(after, state, strict=True)]
            assert sum(moved) == len(counts)
        take_steps(params, optimizer, range(step, step + 1))
        take_steps(twins, twin, range(step, step + 1))
    assert_same([p.detach() for p in params], [p.detach() for p in twins])
    assert optimizer.skipped_steps.item() == 4


@pytest.mark.parametrize("foreach", [True, False])
@pytest.mark.parametrize("norm", [math.inf, torch.tensor(math.nan)])
def test_a_total_norm_that_is_not_finite_skips_the_step(norm: Any, foreach: bool) -> None:
    params, optimizer = build(foreach=foreach)
    take_steps(params, optimizer, range(2))
    before = [p.detach().clone() for p in params]
    ages = [optimizer.state[p]["step"].clone() for p in params]
    optimizer.step(total_norm=norm)
    assert_same([p.detach() for p in params], before)
    assert_same([optimizer.state[p]["step"] for p in params], ages)
    assert optimizer.skipped_steps.item() == 1
