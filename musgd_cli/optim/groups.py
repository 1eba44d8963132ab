"""Which parameters decay."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split a model's parameters into those that decay and those that do not.

    Weights of two or more dimensions decay. Biases do not, nor do the weights of normalization
    layers and other vectors and scalars (PReLU slopes, logit scales): decay moves a scale
    without a zero to regularize towards. Frozen parameters are included: they take no step until
    they are thawed. A parameter shared by several modules is counted where it is met first.

    Args:
        model: Any module.
        weight_decay: What the first group decays by.

    Returns:
        Groups for any torch optimizer, the empty ones left out, each with ``params``,
        ``weight_decay`` and ``param_group``: ``"weight"``, ``"bn"`` or ``"bias"``, the names that
        Ultralytics' warm-up and Muon look for.
    """
    split: dict[str, list[nn.Parameter]] = {"weight": [], "bn": [], "bias": []}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, param in module.named_parameters(recurse=False):
            if param in seen:
                continue
            seen.add(param)
            if name.endswith("bias"):
                kind = "bias"
            elif isinstance(module, _NORMS) or param.ndim < 2:
                kind = "bn"
            else:
                kind = "weight"
            split[kind].append(param)
    return [
        {
            "params": params,
            "weight_decay": weight_decay if kind == "weight" else 0.0,
            "param_group": kind,
        }
        for kind, params in split.items()
        if params
    ]
