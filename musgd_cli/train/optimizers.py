"""The optimizer that a plan asks for, over the parameters of a YOLO model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from musgd_cli.records import OptimSettings

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

ADAM_BETA2 = 0.999
"""torch's and Ultralytics' default."""


def build(settings: OptimSettings, model: nn.Module) -> Optimizer:
    """Return the optimizer, with groups that Ultralytics' warm-up understands.

    ``muon-sgd`` is not built here: Ultralytics builds its own.
    """
    from torch import optim

    from musgd_cli.optim import MuSGD, parameter_groups

    groups = parameter_groups(model, weight_decay=settings.weight_decay)
    if settings.name in ("musgd", "musgd-article"):
        return MuSGD(
            groups,
            lr=settings.lr,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            second_moment=settings.second_moment,
            adapt_factor=settings.adapt_factor,
            norm_scope=settings.norm_scope,
            lr_in_buffer=settings.lr_in_buffer,
            decay_in_norm=settings.decay_in_norm,
        )
    if settings.name == "sgd":
        return optim.SGD(
            groups, lr=settings.lr, momentum=settings.momentum, nesterov=settings.nesterov
        )
    return optim.AdamW(groups, lr=settings.lr, betas=(settings.momentum, ADAM_BETA2))


def muon_hybrid(
    params: list[nn.Parameter], *, lr: float, momentum: float, weight_decay: float
) -> Optimizer:
    """Return Ultralytics' own hybrid, outside of its trainer: for measurements of a step.

    Muon steps matrices and filters, Nesterov SGD the rest, with the shares that
    ``BaseTrainer.build_optimizer`` gives them.
    """
    from musgd_cli.train import sandbox

    sandbox.prepare()
    from ultralytics.optim import MuSGD as MuonSGD

    shared = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "nesterov": True}
    filters = [p for p in params if p.ndim in (2, 4)]
    others = [p for p in params if p.ndim not in (2, 4)]
    groups: list[dict[str, Any]] = [
        {"params": filters, "use_muon": True, **shared},
        {"params": others, "use_muon": False, **shared},
    ]
    optimizer: Optimizer = MuonSGD(groups, muon=0.2, sgd=1.0)
    return optimizer


def step(optimizer: Optimizer, scaler: Any, norm: Any) -> None:
    """Take one step; MuSGD is told the gradient's norm before the clip."""
    from musgd_cli.optim import MuSGD

    if isinstance(optimizer, MuSGD):
        scaler.step(optimizer, total_norm=norm)
    else:
        scaler.step(optimizer)


def state_bytes(optimizer: Optimizer) -> int:
    """Return how much the optimizer keeps between steps."""
    from torch import Tensor

    tensors = [
        value
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def beta(optimizer: Optimizer) -> Any | None:
    """Return the momentum of the last step, a number or a scalar tensor; ``None`` if it has none.

    For MuSGD it is the mean over the parameter tensors, weighted by their size.
    """
    from musgd_cli.optim import MuSGD

    if isinstance(optimizer, MuSGD):
        return optimizer.last_beta()
    return momentum(optimizer)


def momentum(optimizer: Optimizer) -> float | None:
    """Return the momentum that the next step sets out from; ``None`` if the optimizer has none."""
    return optimizer.param_groups[0].get("momentum")
