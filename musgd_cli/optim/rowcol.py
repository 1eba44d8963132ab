"""The update of ``second_moment="rowcol"``: each row and column of a weight moves at one speed.

Matrices and filters are scaled by the mean square of their own update's rows and columns, taken
anew at each step, so that nothing but SGD's momentum buffer is the size of the model. Vectors
(biases, norm weights; under 1 % of a network) keep a running mean square of each value, as
RMSProp does. ``docs/optimizer.md`` has the equations and what they were measured to be worth.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from itertools import groupby
from typing import Final, NamedTuple

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


SPANS: Final = {"cpu": 2**18, "cuda": 2**24}
"""Values that are worked on at a time. The CPU's stay in cache; a GPU's bound the temporaries, two
to four times as large, where a model is made of hundreds of like blocks."""


def moving_weight(ages: Tensor) -> Tensor:
    """How far a running mean moves at its step number ``ages``, so that it has no bias.

    By (1 - d) / (1 - d^t) of the way; at t = 1 the mean is the value.
    """
    return (DECAY - 1) / torch.expm1(ages * math.log(DECAY))


def like_runs(params: list[Tensor]) -> Iterator[slice]:
    """Slices of neighbours that are worked on at once, of no more values together than a span.

    They have one shape, or are vectors of whatever lengths.
    """
    span = SPANS["cpu" if params[0].device.type == "cpu" else "cuda"]
    start = values = 0
    last, size = params[0].shape, params[0].numel()
    for i, param in enumerate(params):
        shape = param.shape
        alike = shape == last
        if not alike:
            alike = len(shape) == len(last) == 1
            last, size = shape, shape.numel()
        if i > start and (not alike or values + size > span):
            yield slice(start, i)
            start, values = i, 0
        values += size
    yield slice(start, len(params))


def storage_of(tensor: Tensor) -> int:
    """The same number for tensors that share memory. Fake tensors have one too, but no address."""
    number: int = tensor.untyped_storage()._cdata
    return number


class Block(NamedTuple):
    """n like tensors in one: of shape (n, ...), or, of vectors, end to end."""

    whole: Tensor
    parts: list[Tensor]
    """Its views, of the tensors' own shapes."""

    def is_held(self, held: list[Tensor | None], dtype: torch.dtype, device: torch.device) -> bool:
        """Whether these are its parts still, and it is of that dtype and device.

        A part whose data was set to another tensor's (``state["x"].data = ...``) is none.
        """
        return (
            self.whole.dtype is dtype
            and self.whole.device == device
            and len(held) == len(self.parts)
            and all(map(operator.is_, held, self.parts))
            and storage_of(self.parts[0]) == storage_of(self.whole)
        )


def parts_of(whole: Tensor, lengths: list[int] | None) -> list[Tensor]:
    """Views of a block; ``lengths`` are those of vectors, None of all else."""
    return list(whole.unbind() if lengths is None else whole.split_with_sizes(lengths))


def lengths_of(params: list[Tensor]) -> list[int] | None:
    """The lengths of vectors; None of all else, scalars included."""
    return [param.numel() for param in params] if params[0].dim() == 1 else None


def multi_tensor_rowcol(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffers: Block | None,
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
    """The update of one of :func:`like_runs`; see :class:`~musgd_cli.optim.MuSGD`.

    Args:
        params: n tensors of one device and dtype, changed in place.
        grads: Their gradients, left as they are.
        momentum_buffers: Their buffers, zeros before the first step; changed in place. None: no
            momentum.
        exp_avg_sqs: Running mean squares, changed in place: of matrices or filters one number
            each, shape (n,); of vectors and scalars one a value, end to end.
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
    lengths = lengths_of(params)
    skip = None if keep is None else keep.logical_not().to(torch.float32)
    # The fused kernels walk through memory, whatever the strides.
    grads = [grad if grad.is_contiguous() else grad.contiguous() for grad in grads]
    scaled_by_value = params[0].dim() < 2
    joined: Tensor | None = None
    parts: list[Tensor] | None = None
    if scaled_by_value or momentum_buffers is None or isinstance(momentum, Tensor):
        joined = _joined(grads)
        if keep is not None:
            joined = torch.where(keep, joined, 0.0)
        if scaled_by_value:
            squares = joined.to(weights.dtype).square()
            exp_avg_sqs.lerp_(squares, _for_values(weights, params))
        if maximize:
            joined = -joined
    if isinstance(momentum, Tensor) and momentum.dim():
        momentum = _for_values(momentum, params)
    if momentum_buffers is None:
        assert joined is not None
        x = joined
    elif isinstance(momentum, Tensor):
        assert joined is not None
        decay = momentum if keep is None else torch.where(keep, momentum, 1.0)
        buffers = momentum_buffers.whole.mul_(decay).add_(joined)
        x = (
            torch.addcmul(joined, buffers, momentum.to(buffers.dtype))
            if nesterov
            else buffers.clone()
        )
    else:
        # One pass over the gradients: SGD, with 0 for a parameter and -1 for lr.
        x = torch.zeros_like(momentum_buffers.whole)
        parts = parts_of(x, lengths)
        torch._fused_sgd_(
            parts,
            grads,
            momentum_buffers.parts,
            weight_decay=0.0,
            momentum=momentum,
            lr=-1.0,
            dampening=0.0,
            nesterov=nesterov,
            maximize=maximize,
            is_first_step=False,
            found_inf=skip,
        )
    if x.numel() == 0:
        return
    update = x.to(weights.dtype)
    if scaled_by_value:
        update.mul_(_inverse_root(exp_avg_sqs))
        if momentum_buffers is not None:
            # Of a sum over 1 / (1 - beta) gradients a mean one.
            update.mul_(1 - momentum)
    else:
        _equalize_(update.view(len(params), params[0].shape[0], -1), exp_avg_sqs, weights)
    update = update.to(x.dtype)
    if all(param.is_contiguous() for param in params):
        torch._fused_sgd_(
            params,
            parts if parts is not None and update is x else parts_of(update, lengths),
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
        update.add_(_joined(params), alpha=weight_decay)
    if keep is not None:
        update = torch.where(keep, update, 0.0)
    torch._foreach_add_(params, parts_of(update, lengths), alpha=-lr)  # type: ignore[arg-type]


def _joined(tensors: list[Tensor]) -> Tensor:
    return torch.cat(tensors) if tensors[0].dim() == 1 else torch.stack(tensors)


def _for_values(numbers: Tensor, params: list[Tensor]) -> Tensor:
    """One number a tensor, shape (n,), in a shape that goes with a block of theirs."""
    if params[0].dim() != 1:
        return numbers.reshape(-1, *(1,) * params[0].dim())
    each, start = [], 0
    # By lengths, of which there are few, without a tensor of them: its copy would be waited for.
    for length, like in groupby(param.numel() for param in params):
        end = start + len(list(like))
        each.append(numbers[start:end].repeat_interleave(length))
        start = end
    return torch.cat(each)


def _equalize_(x: Tensor, averages: Tensor, weights: Tensor) -> None:
    """:func:`_equalize`, in place, of n matrices: ``x`` of shape (n, rows, columns)."""
    height, width = x.shape[1:]
    rows = torch.linalg.vector_norm(x, dim=2, keepdim=True)
    rows.mul_(rows)
    averages.lerp_(rows.sum((1, 2)).mul_(1 / (height * width)), weights)
    # Of sums, not means: so the rows get their 1 / sqrt(width).
    rows.add_(averages.view(-1, 1, 1), alpha=ROW_FLOOR**2 * width)
    x.mul_(rows.clamp_(min=torch.finfo(x.dtype).tiny * width).rsqrt_())
    columns = (x * x).sum(1, keepdim=True)
    floor = torch.full((), COLUMN_FLOOR, dtype=x.dtype, device=x.device)
    x.mul_(torch.add(floor, columns, alpha=width / height).rsqrt_())


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
        # Two floats would be of float32, whose .9 is not float64's.
        decay = momentum if keep is None else torch.where(keep, momentum, weight.new_ones(()))
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
