"""What survives checkpoints, copies, schedules and torch's own machinery around an optimizer."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from musgd_cli.optim import MuSGD  # noqa: E402

EVERY_KIND = [
    {},
    {"adapt_factor": 0},
    {"norm_scope": "global", "nesterov": True},
    {"adapt_factor": "auto"},
    {"adapt_factor": "auto", "norm_scope": "global", "skip_nonfinite": True},
    {"adapt_factor": "auto", "lr_in_buffer": True, "decay_in_norm": True},
]


def build(
    options: dict[str, Any], dtype: torch.dtype = torch.float32
) -> tuple[list[torch.nn.Parameter], MuSGD]:
    generator = torch.Generator().manual_seed(0)
    params = [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
        for shape in [(5, 3), (7,), (2, 2)]
    ]
    groups = [{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.0}]
    return params, MuSGD(groups, **options)


def run(
    params: list[torch.nn.Parameter], optimizer: MuSGD, steps: range, size: float = 1.0
) -> list[float]:
    betas = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        for param in params:
            grad = torch.randn(param.shape, generator=generator) * size
            param.grad = grad.to(param.dtype)
        optimizer.step()
        betas.append(optimizer.last_beta().item())
    return betas


def assert_equal_runs(
    params: list[torch.nn.Parameter],
    optimizer: torch.optim.Optimizer,
    others: list[torch.nn.Parameter],
    other: torch.optim.Optimizer,
) -> None:
    for p, q in zip(params, others, strict=True):
        assert torch.equal(p, q)
        state, twin = optimizer.state[p], other.state[q]
        assert state.keys() == twin.keys()
        for name in state:
            assert state[name].dtype == twin[name].dtype, name
            assert torch.equal(state[name], twin[name]), name


def saved_and_loaded(state_dict: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state_dict, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", EVERY_KIND, ids=str)
def test_a_resumed_run_is_the_uninterrupted_one(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Through a file, safely loaded. Gradients of norm 1000: n² would be inf in float16."""
    params, optimizer = build(options, dtype)
    run(params, optimizer, range(5), size=1000.0)
    weights = [p.detach().clone() for p in params]
    checkpoint = saved_and_loaded(optimizer.state_dict())
    expected = run(params, optimizer, range(5, 9), size=1000.0)

    others, other = build(options, dtype)
    for param, weight in zip(others, weights, strict=True):
        param.data.copy_(weight)
    other.load_state_dict(checkpoint)
    assert run(others, other, range(5, 9), size=1000.0) == expected
    assert_equal_runs(params, optimizer, others, other)


@pytest.mark.parametrize("scope", ["tensor", "global"])
def test_the_running_mean_survives_ultralytics_checkpoints(scope: str) -> None:
    """Ultralytics halves all float32 state but what is called step, exp_avg, exp_avg_sq or
    square_avg (``convert_optimizer_state_dict_to_fp16``): 9e4 would come back as inf."""
    options = {"adapt_factor": "auto", "norm_scope": scope, "lr": 1e-9}
    params, optimizer = build(options)
    run(params, optimizer, range(5), size=1000.0)
    checkpoint = copy.deepcopy(optimizer.state_dict())
    for state in checkpoint["state"].values():
        for name, value in state.items():
            spared = name in {"step", "exp_avg", "exp_avg_sq", "square_avg"}
            if value.dtype is torch.float32 and not spared:
                state[name] = value.half()
    expected = run(params, optimizer, range(5, 7), size=1000.0)

    others, other = build(options)
    other.load_state_dict(saved_and_loaded(checkpoint))
    assert run(others, other, range(5, 7), size=1000.0) == expected


def test_a_checkpoint_shares_no_running_mean_with_who_loads_it() -> None:
    params, optimizer = build({"adapt_factor": "auto"})
    run(params, optimizer, range(2))
    checkpoint = optimizer.state_dict()
    before = checkpoint["state"][0]["square_avg"].clone()
    others, other = build({"adapt_factor": "auto"})
    other.load_state_dict(checkpoint)
    run(others, other, range(2, 5))
    assert torch.equal(checkpoint["state"][0]["square_avg"], before)


@pytest.mark.parametrize("options", EVERY_KIND, ids=str)
def test_pickle_and_deepcopy_go_on_alike(options: dict[str, Any]) -> None:
    params, optimizer = build(options)
    run(params, optimizer, range(3))
    pickled = pickle.loads(pickle.dumps((params, optimizer)))
    copied = copy.deepcopy((params, optimizer))
    expected = run(params, optimizer, range(3, 6))
    for others, other in (pickled, copied):
        assert other.last_beta() is None
        assert optimizer.defaults.items() <= other.defaults.items()
        assert run(others, other, range(3, 6)) == expected
        assert_equal_runs(params, optimizer, others, other)


def test_an_sgd_checkpoint_is_taken_up_with_this_optimizers_own_options() -> None:
    params, optimizer = build({"adapt_factor": 0.7, "norm_scope": "global"})
    twins, _ = build({})
    groups = [{"params": twins[:2]}, {"params": twins[2:], "weight_decay": 0.0}]
    sgd = torch.optim.SGD(groups, lr=0.25, momentum=0.8, dampening=0.1)
    for twin in twins:
        twin.grad = torch.ones_like(twin)
    sgd.step()
    optimizer.load_state_dict(sgd.state_dict())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["momentum"], group["dampening"]) == (0.25, 0.8, 0.1)
    assert (group["adapt_factor"], group["norm_scope"]) == (0.7, "global")
    assert torch.equal(optimizer.state[params[0]]["momentum_buffer"], torch.ones(5, 3))
    run(params, optimizer, range(2))


def test_torch_sgd_takes_up_this_optimizers_checkpoint() -> None:
    params, optimizer = build({"adapt_factor": "auto", "skip_nonfinite": True})
    run(params, optimizer, range(3))
    sgd = torch.optim.SGD([{"params": params[:2]}, {"params": params[2:]}], lr=0.1)
    sgd.load_state_dict(optimizer.state_dict())
    buffer = optimizer.state[params[0]]["momentum_buffer"]
    assert torch.equal(sgd.state[params[0]]["momentum_buffer"], buffer)
    sgd.step()


def test_a_group_added_later_has_options_of_its_own() -> None:
    params, optimizer = build({"adapt_factor": 0.1})
    run(params, optimizer, range(2))
    late = torch.nn.Parameter(torch.zeros(1))
    optimizer.add_param_group({"params": [late], "adapt_factor": 0.3, "momentum": 0.5})
    for param in params:
        param.grad = None
    late.grad = torch.ones(1)
    optimizer.step()
    assert optimizer.last_beta().item() == pytest.approx(0.5 / 1.3)
    assert optimizer.param_groups[-1]["norm_scope"] == "tensor"


def test_named_parameters_are_taken() -> None:
    optimizer = MuSGD(torch.nn.Linear(2, 2).named_parameters())
    assert optimizer.param_groups[0]["param_names"] == ["weight", "bias"]


def test_a_warm_up_that_rewrites_momentum_sets_the_largest_beta() -> None:
    """As Ultralytics does each batch, with a numpy scalar."""
    np = pytest.importorskip("numpy")
    param = torch.nn.Parameter(torch.zeros(2))
    optimizer = MuSGD([param])
    for momentum in np.interp([0, 1, 2], [0, 2], [0.8, 0.937]):
        optimizer.param_groups[0]["momentum"] = momentum
        param.grad = torch.tensor([6.0, 8.0])
        optimizer.step()
        assert optimizer.last_beta().item() == pytest.approx(momentum / 11)
        assert optimizer.param_groups[0]["momentum"] == momentum  # the adapted one is not put there


def test_momentum_may_start_at_zero_and_return_to_it() -> None:
    """SGD gathers no buffer while momentum is 0 and keeps the one it has."""
    ours, theirs = torch.nn.Parameter(torch.ones(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = MuSGD([ours], lr=0.1, adapt_factor=0)
    sgd = torch.optim.SGD([theirs], lr=0.1, weight_decay=5e-4)
    for momentum in (0.0, 0.9, 0.9, 0.0, 0.9):
        for opt, param in ((optimizer, ours), (sgd, theirs)):
            opt.param_groups[0]["momentum"] = momentum
            param.grad = torch.full((3,), momentum + 1)
            opt.step()
        assert torch.equal(ours, theirs)


def _forget_one(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    del optimizer.state[params[0]]


def _empty_one(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    optimizer.state[params[0]] = {}


def _drop_a_buffer(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    del optimizer.state[params[0]]["momentum_buffer"]


def _reorder(_: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    optimizer.param_groups[0]["params"].reverse()


def _move_to_the_other_group(_: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    first, second = optimizer.param_groups
    second["params"].append(first["params"].pop())


def _widen(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    params[0].data, params[0].grad = params[0].data.double(), None
    state = optimizer.state[params[0]]
    state["momentum_buffer"] = state["momentum_buffer"].double()


def _stop_momentum(_: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    optimizer.param_groups[0]["momentum"] = 0.0


def _prune_rows(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    params[0].data, params[0].grad = params[0].data[:2].clone(), None
    state = optimizer.state[params[0]]
    state["momentum_buffer"] = state["momentum_buffer"][:2].clone()


def _set_state_data(params: list[torch.nn.Parameter], optimizer: MuSGD) -> None:
    for param in params:
        for value in optimizer.state[param].values():
            value.data = value.data.clone().zero_()


@pytest.mark.parametrize("second_moment", ["none", "rowcol"])
@pytest.mark.parametrize(
    "meddle",
    [
        _forget_one,
        _empty_one,
        _drop_a_buffer,
        _reorder,
        _move_to_the_other_group,
        _widen,
        _stop_momentum,
        _prune_rows,
        _set_state_data,
    ],
)
def test_what_is_changed_between_steps_is_what_the_next_step_works_on(
    meddle: Callable[[list[torch.nn.Parameter], MuSGD], None], second_moment: str
) -> None:
    """What it remembers of its tensors must not outlast them: a copy remembers nothing."""
    params, optimizer = build({"second_moment": second_moment, "adapt_factor": 0})
    run(params, optimizer, range(2))
    others, other = copy.deepcopy((params, optimizer))
    meddle(params, optimizer)
    meddle(others, other)
    for step in range(2, 5):
        others, other = copy.deepcopy((others, other))
        run(params, optimizer, range(step, step + 1))
        run(others, other, range(step, step + 1))
        assert_equal_runs(params, optimizer, others, other)


@pytest.mark.parametrize("second_moment", ["none", "rowcol"])
def test_gradients_may_come_and_go(second_moment: str) -> None:
    params, optimizer = build({"second_moment": second_moment, "adapt_factor": 0})
    others, other = copy.deepcopy((params, optimizer))
    for step, present in enumerate([(0, 1, 2), (0, 2), (1,), (), (1, 2), (0, 1, 2), (0, 1, 2)]):
        others, other = copy.deepcopy((others, other))
        for tensors, each in ((params, optimizer), (others, other)):
            for i, param in enumerate(tensors):
                grad = torch.full(param.shape, step + i + 1.0)
                param.grad = grad if i in present else None
            each.step()
        assert_equal_runs(params, optimizer, others, other)


def held_bytes(optimizer: MuSGD) -> int:
    """What the state keeps alive, shared storages once."""
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage().nbytes()
        for state in optimizer.state.values()
        for value in state.values()
    }
    return sum(storages.values())


def test_tensors_that_are_frozen_one_by_one_cost_no_more_than_before() -> None:
    """Their buffers were views of one block: none may keep a block alive for its own sake."""
    params = [torch.nn.Parameter(torch.ones(8, 8)) for _ in range(6)]
    optimizer = MuSGD(params, second_moment="rowcol", adapt_factor=0)
    of_buffers = sum(param.numel() * 4 for param in params)
    for n_frozen in range(6):
        for i, param in enumerate(params):
            param.grad = torch.ones_like(param) if i >= n_frozen else None
        optimizer.step()
        assert held_bytes(optimizer) <= 1.1 * of_buffers
        assert sum(len(state["momentum_buffer"]) for state in optimizer.state.values()) == 48


def test_a_group_that_is_taken_out_is_let_go() -> None:
    kept = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = MuSGD([kept], second_moment="rowcol", adapt_factor=0)
    gone = []
    for _ in range(3):
        param = torch.nn.Parameter(torch.ones(3, 3))
        gone.append(weakref.ref(param))
        optimizer.add_param_group({"params": [param]})
        kept.grad, param.grad = torch.ones(2, 2), torch.ones(3, 3)
        optimizer.step()
        del optimizer.state[param], optimizer.param_groups[1], param
    optimizer.step()
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3


def test_a_state_that_is_cleared_again_and_again_does_not_pile_up() -> None:
    param = torch.nn.Parameter(torch.ones(64, 64))
    optimizer = MuSGD([param], second_moment="rowcol", adapt_factor=0)
    buffers = []
    for _ in range(4):
        param.grad = torch.ones(64, 64)
        optimizer.step()
        buffers.append(weakref.ref(optimizer.state[param]["momentum_buffer"]))
        optimizer.state.clear()
    optimizer.step()
    gc.collect()
    assert [ref() for ref in buffers] == [None] * 4


def test_momentum_may_be_a_tensor() -> None:
    """As schedulers of some libraries leave it."""
    ours, theirs = (torch.nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    for param, momentum in ((ours, torch.tensor(0.9)), (theirs, 0.9)):
        optimizer = MuSGD([param], adapt_factor=0)
        optimizer.param_groups[0]["momentum"] = momentum
        for _ in range(3):
            param.grad = torch.ones(2, 2)
            optimizer.step()
    assert torch.allclose(ours, theirs)


def test_a_one_cycle_schedule_drives_it_as_it_drives_sgd() -> None:
    ours, theirs = torch.nn.Parameter(torch.ones(4)), torch.nn.Parameter(torch.ones(4))
    optimizers = (
        MuSGD([ours], lr=0.1, adapt_factor=0),
        torch.optim.SGD([theirs], lr=0.1, momentum=0.9, weight_decay=5e-4),
    )
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(o, max_lr=0.5, total_steps=20) for o in optimizers
    ]
    for step in range(20):
        for optimizer, schedule, param in zip(optimizers, schedules, (ours, theirs), strict=True):
            param.grad = torch.full((4,), float(step % 3) - 1)
            optimizer.step()
            schedule.step()
    assert torch.equal(ours, theirs)


def test_a_closure_is_run_with_gradients_and_its_loss_returned() -> None:
    param = torch.nn.Parameter(torch.tensor([3.0]))
    optimizer = MuSGD([param], lr=0.1, weight_decay=0.0)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    assert param.item() == pytest.approx(3.0 - 0.1 * 6.0)
    with pytest.raises(ValueError, match=r"5\.0"):
        optimizer.step(closure, total_norm=5.0)


def test_a_step_without_gradients_does_nothing() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = MuSGD([param], skip_nonfinite=True)
    optimizer.step(total_norm=torch.tensor(1.0))
    assert torch.equal(param, torch.ones(2))
    assert optimizer.last_beta() is None
    assert not optimizer.state


def test_no_gradient_is_kept_alive_between_steps() -> None:
    param = torch.nn.Parameter(torch.ones(2))
    optimizer = MuSGD([param], decay_in_norm=True)
    param.grad = torch.ones(2)
    grad = weakref.ref(param.grad)
    optimizer.step()
    optimizer.zero_grad()
    gc.collect()
    assert grad() is None
    assert optimizer.last_beta() is not None


def test_sparse_gradients_are_refused_with_their_shape() -> None:
    embedding = torch.nn.Embedding(10, 3, sparse=True)
    optimizer = MuSGD(embedding.parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match=r"sparse.*\(10, 3\)"):
        optimizer.step()


def test_a_state_of_scalars_is_all_that_auto_adds_to_sgds() -> None:
    params, optimizer = build({"adapt_factor": "auto"})
    run(params, optimizer, range(1))
    for param in params:
        state = optimizer.state[param]
        assert state.keys() == {"momentum_buffer", "square_avg", "step"}
        assert state["square_avg"].shape == state["step"].shape == ()
    plain_params, plain = build({})
    run(plain_params, plain, range(1))
    assert plain.state[plain_params[0]].keys() == {"momentum_buffer"}
