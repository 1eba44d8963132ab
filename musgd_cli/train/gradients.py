"""How much the loss depends on each channel, found by a few batches and no step.

Import after `sandbox.prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg

from musgd_cli.data.dataset import DataSet
from musgd_cli.train.dataset import RunDataset, loader

BATCH = 8

MOST_IMAGES = 256
"""Of more training images a seeded choice is taken."""


def gate_gradients(
    model: nn.Module, data: DataSet, *, imgsz: int, seed: int
) -> Mapping[str, Tensor]:
    """Differentiate the training loss by a gate on each normalized channel.

    Of ``gate * batch_norm(x)`` at a gate of 1 the derivative is ``weight * weight.grad +
    bias * bias.grad``: what closing the gate, which removes the channel, changes to first order.

    Args:
        model: A detection model of the classes of ``data``; it is left as it is. Batch
            normalization uses its running statistics.
        data: Its ``train`` images are taken, letterboxed and not augmented.
        imgsz: Their side, pixels.
        seed: Decides which, where there are more than `MOST_IMAGES`.

    Returns:
        By name of the batch normalization: (batches, channels), of an image's mean loss.

    Raises:
        MusgdError: An image is damaged.
    """
    probe: Any = deepcopy(model).train()
    probe.args, probe.criterion = get_cfg(), None
    norms: dict[str, Any] = {
        name: m for name, m in probe.named_modules() if isinstance(m, nn.BatchNorm2d)
    }
    for norm in norms.values():
        norm.eval()
    found: dict[str, list[Tensor]] = {name: [] for name in norms}
    for number, batch in enumerate(_batches(data, imgsz, seed)):
        if number * BATCH >= MOST_IMAGES:
            break
        probe.zero_grad()
        loss, _ = probe({**batch, "img": batch["img"].float() / 255})
        (loss.sum() / len(batch["img"])).backward()
        for name, norm in norms.items():
            found[name].append(
                (norm.weight * norm.weight.grad + norm.bias * norm.bias.grad).detach()
            )
    return {name: torch.stack(rows) for name, rows in found.items()}


def _batches(data: DataSet, imgsz: int, seed: int) -> Any:
    dataset = RunDataset(
        data,
        "train",
        seed=seed,
        plain_from=1,
        imgsz=imgsz,
        batch_size=BATCH,
        augment=False,
        hyp=get_cfg(),
        rect=False,
        cache=None,
        data={"names": dict(enumerate(data.names)), "nc": len(data.names), "channels": 3},
        task="detect",
    )
    return loader(dataset, BATCH, workers=0, seed=seed, shuffle=True, pin_memory=False)
