"""The update of ``second_moment="rowcol"``: each row and column of a weight moves at one speed.

Matrices and filters are scaled by the mean square of their own update's rows and columns, taken
anew at each step, so that nothing but SGD's momentum buffer is the size of the model. Vectors
(biases, norm weights; under 1 % of a network) keep a running mean square of each value, as
RMSProp does. ``docs/optimizer.md`` has the equations and what they were measured to be worth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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


SPANS: Final = {"cpu": 2**17, "cuda": 2**24}
"""Values of one shape that are worked on at a time. The CPU's stay in cache; a GPU's bound the
temporaries, three to four times as large, where a model is made of hundreds of like blocks."""


def moving_weight(ages: Tensor) -> Tensor:
    """How far a running mean moves at its step number ``ages``, so that it has no bias.

    By (1 - d) / (1 - d^t) of the way; at t = 1 the mean is the value.
    """
    return (DECAY - 1) / torch.expm1(ages * math.log(DECAY))


def like_runs(params: list[Tensor]) -> Iterator[slice]:
    """Slices of neighbours that have one shape, and no more values together than a span."""
    span = SPANS["cpu" if params[0].device.type == "cpu" else "cuda"]
    start, shape, room = 0, params[0].shape, 0
    for i, param in enumerate(params):
        if param.shape != shape or i - start >= room:
            if i > start:
                yield slice(start, i)
            start, shape = i, param.shape
            room = max(span // max(param.numel(), 1), 1)
    yield slice(start, len(params))


def multi_tensor_rowcol(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffers: Tensor | None,
    exp_avg_sqs: Tensor,
    weights: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    keep: Tensor | None = None,
) -> None:
    """The update of n tensors of one shape, device and dtype; see :class:`~musgd_cli.optim.MuSGD`.

    Args:
        params: The tensors, changed in place.
        grads: Their gradients, left as they are.
        momentum_buffers: Their buffers, of shape (n, ...), zeros before the first step; changed
            in place. None: no momentum.
        exp_avg_sqs: Running mean squares, changed in place: of matrices or filters one number
            each, shape (n,); of vectors or scalars one a value, shape (n, ...).
        weights: How far each mean moves, shape (n,): see :func:`moving_weight`. 0 where ``keep``
            is False.
        lr: Learning rate.
        momentum: beta: a float, or a tensor of shape (), for all, or (n,), for one each; no NaN
            where ``keep`` is False.
        weight_decay: Decoupled: the parameter shrinks by lr * weight_decay of itself.
        nesterov: Whether the update looks ahead.
        maximize: Ascend instead of descend.
        keep: A bool tensor of shape (): False turns the step into nothing, whatever the gradients
            hold.
    """
    n, shape = len(params), params[0].shape
    if shape.numel() == 0:
        return
    skip = None if keep is None else keep.logical_not().to(torch.float32)
    # The fused kernels walk through memory, whatever the strides.
    grads = [grad if grad.is_contiguous() else grad.contiguous() for grad in grads]
    if len(shape) < 2:
        squares = _stacked(grads).to(weights.dtype).square()
        if keep is not None:
            squares = torch.where(keep, squares, 0.0)
        exp_avg_sqs.lerp_(squares, weights.reshape(n, *(1,) * len(shape)))
    if momentum_buffers is None:
        x = _stacked(grads)
        x = -x if maximize else x
    elif isinstance(momentum, Tensor):
        grad = _stacked(grads)
        grad = -grad if maximize else grad
        if keep is not None:
            grad = torch.where(keep, grad, 0.0)
        momentum = momentum.reshape(-1, *(1,) * len(shape))
        decay = momentum if keep is None else torch.where(keep, momentum, 1.0)
        x = momentum_buffers.mul_(decay).add_(grad)
        if nesterov:
            x = torch.addcmul(grad, momentum_buffers, momentum.to(grad.dtype))
    else:
        # One pass over the gradients: SGD, with 0 for a parameter and -1 for lr.
        x = torch.zeros_like(momentum_buffers)
        torch._fused_sgd_(
            x.unbind(),
            grads,
            momentum_buffers.unbind(),
            weight_decay=0.0,
            momentum=momentum,
            lr=-1.0,
            dampening=0.0,
            nesterov=nesterov,
            maximize=maximize,
            is_first_step=False,
            found_inf=skip,
        )
    if x.dtype != weights.dtype:
        x = x.to(weights.dtype)
    if len(shape) < 2:
        update = x * _inverse_root(exp_avg_sqs)
        if momentum_buffers is not None:
            # Of a sum over 1 / (1 - beta) gradients a mean one.
            update *= 1 - momentum
    else:
        x = x.view(n, shape[0], -1)
        rows, columns = x.shape[1:]
        squares = x * x
        means = squares.mean(2)
        exp_avg_sqs.lerp_(means.mean(1), weights)
        means.add_(exp_avg_sqs.unsqueeze(1), alpha=ROW_FLOOR**2)
        inverses = means.clamp_(min=torch.finfo(x.dtype).tiny).reciprocal_().unsqueeze(1)
        floor = x.new_full((1, 1, 1), COLUMN_FLOOR)
        # Not by alpha: times the inverse of a row of zeros it is infinite, and times 0 NaN.
        scales = torch.baddbmm(floor, inverses, squares, beta=rows).mul_(columns / rows)
        update = torch.mul(x, inverses.sqrt_().mT, out=squares).mul_(scales.rsqrt_())
        update = update.view(n, *shape)
    if all(param.is_contiguous() for param in params):
        torch._fused_sgd_(
            params,
            update.to(params[0].dtype).unbind(),
            [],
            weight_decay=weight_decay,
            momentum=0.0,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
            found_inf=skip,
        )
        return
    if weight_decay != 0:
        update.add_(_stacked(params), alpha=weight_decay)
    if keep is not None:
        update = torch.where(keep, update, 0.0)
    updates = update.to(params[0].dtype).unbind()
    torch._foreach_add_(params, updates, alpha=-lr)  # type: ignore[arg-type]


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Shape (n, ...); a view, if there is but one."""
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def single_tensor_rowcol(
    param: Tensor,
    grad: Tensor,
    momentum_buffer: Tensor | None,
    exp_avg_sq: Tensor,
    weight: Tensor,
    *,
    lr: float | Tensor,
    momentum: float | Tensor,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    keep: Tensor | None = None,
) -> None:
    """The update of one tensor, which may be sharded (DTensor).

    The arguments are those of :func:`multi_tensor_rowcol`, without their first dimension.
    """
    if param.numel() == 0:
        return
    if maximize:
        grad = -grad
    if keep is not None:
        grad = torch.where(keep, grad, grad.new_zeros(()))
    x = grad
    if momentum_buffer is not None:
        decay = momentum if keep is None else torch.where(keep, momentum, 1.0)
        momentum_buffer.mul_(decay).add_(grad)
        if not nesterov:
            x = momentum_buffer
        elif isinstance(momentum, Tensor):
            x = torch.addcmul(grad, momentum_buffer, momentum.to(grad.dtype))
        else:
            x = grad.add(momentum_buffer, alpha=momentum)
    x = x.to(weight.dtype)
    if param.dim() < 2:
        exp_avg_sq.lerp_(grad.to(x.dtype).square(), weight)
        update = x * _inverse_root(exp_avg_sq)
        if momentum_buffer is not None:
            # Of a sum over 1 / (1 - beta) gradients a mean one.
            update = update * (1 - momentum)
    else:
        update = _equalize(x, exp_avg_sq, weight)
    if weight_decay != 0:
        update = update.add(param, alpha=weight_decay)
    if keep is not None:
        update = torch.where(keep, update, update.new_zeros(()))
    param.add_(update.to(param.dtype), alpha=-lr)  # type: ignore[arg-type]


def _equalize(x: Tensor, average: Tensor, weight: Tensor) -> Tensor:
    """``x`` with rows of norm 1 and columns of like mean squares, as nearly as one pass gets.

    Of shards (FSDP2's DTensor) the sums are those of the whole. They are sums, not means: shards
    need not be alike in size.
    """
    rows, columns = x.shape[0], x.numel() // x.shape[0]
    squares = x.square()
    means = squares.sum(dim=tuple(range(1, x.dim())), keepdim=True) / columns
    average.lerp_(_whole(means.sum()) / rows, weight)
    means = means + ROW_FLOOR**2 * average
    inverses = means.clamp(min=torch.finfo(means.dtype).tiny).reciprocal()
    scales = (squares * inverses).sum(dim=0, keepdim=True) * (columns / rows)
    return x * inverses.sqrt() * (scales + COLUMN_FLOOR * columns).rsqrt()


def _whole(tensor: Tensor) -> Tensor:
    whole: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return whole


def _inverse_root(squares: Tensor) -> Tensor:
    return squares.clamp(min=torch.finfo(squares.dtype).tiny).rsqrt_()
