"""Which parameters decay."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from musgd_cli.optim import MuSGD, parameter_groups  # noqa: E402


def names(model: nn.Module) -> dict[str, set[str]]:
    called = {param: name for name, param in model.named_parameters()}
    return {
        group["param_group"]: {called[p] for p in group["params"]}
        for group in parameter_groups(model, 0.01)
    }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.image_norm = nn.LayerNorm([4, 2, 2])  # whose weight has three dimensions
        self.attention = nn.MultiheadAttention(4, 2)
        self.slope = nn.PReLU(4)
        self.logit_scale = nn.Parameter(torch.ones(()))
        self.bias_net = nn.Linear(4, 4, bias=False)  # a weight, whatever its module is called
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def test_weights_decay_and_scales_and_biases_do_not() -> None:
    assert names(Net()) == {
        "weight": {
            "conv.weight",
            "attention.in_proj_weight",
            "attention.out_proj.weight",
            "bias_net.weight",
            "frozen.weight",
        },
        "bn": {"bn.weight", "image_norm.weight", "slope.weight", "logit_scale"},
        "bias": {
            "conv.bias",
            "bn.bias",
            "image_norm.bias",
            "attention.in_proj_bias",
            "attention.out_proj.bias",
            "frozen.bias",
        },
    }
    decay = {g["param_group"]: g["weight_decay"] for g in parameter_groups(Net(), 0.01)}
    assert decay == {"weight": 0.01, "bn": 0.0, "bias": 0.0}


def test_a_shared_weight_is_there_once_and_empty_groups_are_not() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    (group,) = parameter_groups(nn.Sequential(first, second), 0.01)
    assert group["params"] == [first.weight]
    MuSGD([group]).step()


def test_yolo26n_is_split_as_ultralytics_splits_it() -> None:
    if importlib.util.find_spec("ultralytics") is None:
        pytest.skip("Ultralytics is not installed")
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from ultralytics.nn.tasks import DetectionModel

    model = DetectionModel("yolo26n.yaml", nc=80, verbose=False)
    norms = tuple(v for k, v in nn.__dict__.items() if "Norm" in k)
    theirs: dict[str, set[str]] = {"weight": set(), "bn": set(), "bias": set()}
    for module_name, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            kind = "bias" if "bias" in name else "bn" if isinstance(module, norms) else "weight"
            theirs[kind].add(f"{module_name}.{name}")
    assert names(model) == theirs


def test_the_room_knows_torch_and_nothing_else() -> None:
    """A training loop without Ultralytics, or any of this package's own dependencies."""
    code = (
        "import sys\n"
        "sys.modules.update({m: None for m in ('ultralytics', 'rich', 'typer', 'pydantic')})\n"
        "import musgd_cli.optim\n"
        "print([m for m in sys.modules if m.startswith('musgd_cli') and 'optim' not in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['musgd_cli']"
