"""The update of ``second_moment="rowcol"``: each row and column of a weight moves at one speed.

Matrices and filters are scaled by the mean square of their own update's rows and columns, taken
anew at each step, so that nothing but SGD's momentum buffer is the size of the model. Vectors
(biases, norm weights; under 1 % of a network) keep a running mean square of each value, as
RMSProp does. ``docs/optimizer.md`` has the equations and what they were measured to be worth.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor

DECAY: Final = 0.99
"""Decay of the running mean squares: a memory of about 100 steps."""

ROW_FLOOR: Final = 0.1
"""Least root mean square of a row, as a share of what the whole tensor's has lately been. Without
one, a tensor whose gradients stop goes on at full speed for hundreds of steps on what is left in
its buffer; with it, its updates halve within 60 (YOLO26's one-to-one P5 box head has such
tensors)."""

COLUMN_FLOOR: Final = 0.01
"""Added to a column's mean square, of which the mean is 1: no column goes more than 10 times as
fast as the mean one."""


def moving_weight(ages: Tensor) -> Tensor:
    """How far a running mean moves at its step number ``ages``, so that it has no bias.

    By (1 - d) / (1 - d^t) of the way; at t = 1 the mean is the value.
    """
    return (DECAY - 1) / torch.expm1(ages * math.log(DECAY))


def rowcol(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffer_list: list[Tensor | None],
    exp_avg_sqs: list[Tensor],
    ages: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    keep: Tensor | None = None,
) -> None:
    """Functional form, one tensor at a time; see :class:`~musgd_cli.optim.MuSGD`.

    Args:
        params: n tensors of one device and dtype, changed in place.
        grads: Their gradients, left as they are.
        momentum_buffer_list: Their buffers, changed in place; or n times None at the first step,
            replaced by new ones. Empty: no momentum.
        exp_avg_sqs: Running mean squares, changed in place: of a matrix or filter one number,
            shape (); of a vector or scalar one each, its own shape.
        ages: How often each mean has moved, this step included: shape (n,).
        lr: Learning rate.
        momentum: beta: a float, or a tensor of shape (), for all, or (n,), for one each.
        weight_decay: Decoupled: the parameter shrinks by lr * weight_decay of itself.
        nesterov: Whether the update looks ahead.
        maximize: Ascend instead of descend.
        keep: A bool tensor of shape (): False turns the step into nothing, whatever the gradients
            hold.
    """
    weights = moving_weight(ages).unbind()
    for i, param in enumerate(params):
        beta = momentum[i] if isinstance(momentum, Tensor) and momentum.dim() else momentum
        grad = -grads[i] if maximize else grads[i]
        if keep is not None:
            grad = torch.where(keep, grad, grad.new_zeros(()))
        x = grad
        if momentum_buffer_list:
            buffer = momentum_buffer_list[i]
            if buffer is None:
                buffer = momentum_buffer_list[i] = grad.clone()
            else:
                decay = beta if keep is None else torch.where(keep, beta, 1.0)
                buffer.mul_(decay).add_(grad)
            x = grad + beta * buffer if nesterov else buffer
        x = x.to(weights[i].dtype)
        average, weight = exp_avg_sqs[i], weights[i]
        if keep is not None:
            weight = torch.where(keep, weight, 0.0)
        if param.dim() < 2:
            average.lerp_(grad.to(average.dtype).square(), weight)
            # Of a sum over 1 / (1 - beta) gradients a mean one.
            share = 1 - beta if momentum_buffer_list else 1.0
            update = share * x * _inverse_root(average)
        else:
            update = _equalize(x, average, weight)
        if weight_decay != 0:
            update = update.add(param, alpha=weight_decay)
        if keep is not None:
            update = torch.where(keep, update, update.new_zeros(()))
        param.add_(update.to(param.dtype), alpha=-lr)  # type: ignore[arg-type]


def _equalize(x: Tensor, average: Tensor, weight: Tensor) -> Tensor:
    """``x`` with rows of norm 1 and columns of like mean squares, as nearly as one pass gets."""
    squares = x.square()
    rows = squares.mean(dim=tuple(range(1, x.dim())), keepdim=True)
    average.lerp_(rows.mean(), weight)
    rows = rows + ROW_FLOOR**2 * average
    columns = (squares * _inverse(rows)).mean(dim=0, keepdim=True) + COLUMN_FLOOR
    return x * _inverse_root(rows) * (columns * (x.numel() // x.shape[0])).rsqrt()


def _inverse(squares: Tensor) -> Tensor:
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).reciprocal()


def _inverse_root(squares: Tensor) -> Tensor:
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt()
