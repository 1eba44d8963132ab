"""MuSGD: SGD whose momentum shrinks while the gradient is large.

The form is that of ``torch/optim/sgd.py``: a class, a functional :func:`musgd`, and its
single-tensor and multi-tensor bodies. ``docs/optimizer.md`` has the equations as built and the
readings of the article behind them. No step reads a device tensor on the host.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import Optimizer, ParamsT
from torch.utils._foreach_utils import _device_has_foreach_support

from musgd_cli.optim.rowcol import (
    Block,
    lengths_of,
    like_runs,
    moving_weight,
    multi_tensor_rowcol,
    parts_of,
    single_tensor_rowcol,
    storage_of,
)

__all__ = ["MuSGD", "musgd"]

AUTO_FACTOR: Final = 0.1
"""What ``adapt_factor="auto"`` multiplies the relative squared norm by: a gradient of its usual
size (n² equal to the running mean) keeps 1/1.1 of the momentum."""

CPU_SPAN: Final = 2**17
"""Values that list operations work on at a time on the CPU, so that temporaries stay in cache: on
YOLO26n a seventh faster than whole lists (one EPYC core, flat from 2^16 to 2^19), with no copy the
size of the model."""

_INTEGERS: Final = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}

_EXACT_STATE: Final = ("exp_avg_sq", "square_avg", "step", "skipped_steps")
"""State that keeps its own dtype: n² overflows half precision at a norm of 256. Ultralytics' half-
precision checkpoints leave the first three of these names as they are."""

_JOINED_STATE: Final = ("momentum_buffer", "exp_avg_sq", "square_avg", "step")
"""State that may be a part of a block; see :meth:`MuSGD._joined`."""


class MuSGD(Optimizer):
    """Momentum-adaptive SGD: a drop-in for :class:`torch.optim.SGD`.

    With g the gradient, n its norm and m = ``momentum``, one step is::

        beta = m / (1 + adapt_factor * n^2)
        d    = g + weight_decay * p
        v    = beta * v + (1 - dampening) * d        (at first: v = d)
        p    = p - lr * v                            (nesterov: p - lr * (d + beta * v))

    With ``adapt_factor=0`` it is ``torch.optim.SGD``, bit for bit. m is read from the group at
    each step, so whatever rewrites ``group["momentum"]`` sets the largest beta.

    With ``second_moment="rowcol"`` the same v, of g without the decay, gives the update its
    direction, and its own rows and columns give it its size, so that the scale of the loss does
    not matter. A matrix or filter of R rows (output channels) and C columns takes the step::

        x    = g + beta * v                          (without nesterov: x = v)
        E    = running mean of mean_ij(x^2)          (decay .99)
        r_i  = mean_j(x_ij^2) + .01 * E
        c_j  = mean_i(x_ij^2 / r_i) + .01
        p    = p - lr * (x / sqrt(r_i * c_j * C) + weight_decay * p)

    and a vector, with s the running mean of its g^2, value by value::

        p    = p - lr * ((1 - beta) * x / sqrt(s) + weight_decay * p)

    Args:
        params: Parameters, named parameters, or dicts defining parameter groups. Every option
            below may differ from group to group.
        lr: Learning rate. A 1-element tensor is read on the host, as ``torch.optim.SGD`` does:
            keep it on the CPU.
        momentum: m, the beta of a vanishing gradient.
        weight_decay: L2 penalty, added to the gradient.
        adapt_factor: How strongly a large gradient cuts beta, in units of 1/n^2. ``"auto"``
            divides n^2 by its running mean (decay .99, bias-corrected) and multiplies it by .1,
            so that beta does not depend on the scale of the loss.
        norm_scope: Whose norm n is: ``"tensor"``, each parameter's own, or ``"global"``, that of
            all the optimizer's gradients together.
        lr_in_buffer: Multiply lr into v as it is gathered (v = beta * v + lr * d; p = p - v)
            instead of when it is applied. The same at constant lr, up to rounding.
        decay_in_norm: Take n of d instead of g.
        dampening: As in ``torch.optim.SGD``.
        nesterov: Nesterov momentum, with beta in m's place.
        second_moment: ``"none"``, or ``"rowcol"``: see above. A learning rate tuned for one is
            not one for the other. ``"rowcol"`` has no ``dampening``, ``lr_in_buffer``,
            ``decay_in_norm`` or global norm.
        maximize: Ascend instead of descend.
        foreach: Whether to work on lists of tensors instead of one tensor at a time. None: yes
            for plain tensors on a device that has foreach kernels, or on the CPU, there save
            those of half precision.
        skip_nonfinite: Let a step with a NaN or an infinity in any gradient change nothing, and
            count it in :attr:`skipped_steps`. One group that asks for it guards all.

    Raises:
        ValueError: An option is out of its range.
    """

    # Not state: a copy starts without them.
    _last: _Decision | None
    _blocks: dict[tuple[str, int], Block]
    _used: set[tuple[str, int]]
    _joins: bool
    _layouts: dict[int, _Layout]

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 0.01,
        momentum: float = 0.9,
        weight_decay: float = 5e-4,
        *,
        adapt_factor: float | Literal["auto"] = 0.1,
        norm_scope: Literal["tensor", "global"] = "tensor",
        lr_in_buffer: bool = False,
        decay_in_norm: bool = False,
        dampening: float = 0.0,
        nesterov: bool = False,
        second_moment: Literal["none", "rowcol"] = "none",
        maximize: bool = False,
        foreach: bool | None = None,
        skip_nonfinite: bool = False,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "adapt_factor": adapt_factor,
            "norm_scope": norm_scope,
            "lr_in_buffer": lr_in_buffer,
            "decay_in_norm": decay_in_norm,
            "dampening": dampening,
            "nesterov": nesterov,
            "second_moment": second_moment,
            "maximize": maximize,
            "foreach": foreach,
            "skip_nonfinite": skip_nonfinite,
        }
        _check_options(defaults)
        super().__init__(params, defaults)
        self._forget()

    def _forget(self) -> None:
        self._last, self._blocks, self._layouts = None, {}, {}
        self._used, self._joins = set(), False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; what it leaves out it takes from the constructor's options.

        Raises:
            ValueError: One of its options is out of its range.
        """
        if isinstance(param_group, dict):  # else torch raises
            _check_options({**self.defaults, **param_group})
        super().add_param_group(param_group)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        # A checkpoint of torch.optim.SGD, or of a release that lacked an option, leaves that
        # option as this optimizer was built.
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)
        self._forget()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned, or what a ``torch.optim.SGD``'s did.

        The options it names replace this optimizer's, as in every torch optimizer.
        """
        super().load_state_dict(state_dict)
        # torch has cast all state to its parameter's dtype and may have left steps on the CPU.
        saved = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        for key, param in zip(saved, self._parameters(), strict=True):
            for name, value in state_dict["state"].get(key, {}).items():
                if name in _EXACT_STATE:
                    self.state[param][name] = value.to(device=param.device, copy=True)

    @property
    def skipped_steps(self) -> Tensor:
        """Steps skipped because a gradient was not finite: int64, shape (), part of the state."""
        first = next(self._parameters())
        state = self.state.get(first, {})
        count: Tensor = state.get("skipped_steps", torch.zeros((), dtype=torch.int64))
        return count

    def last_beta(self) -> Tensor | None:
        """The last step's mean beta, each tensor weighted by its number of values.

        Returns:
            Shape (), on the device, where it waits for whoever reads it. NaN if the step was
            skipped; None if none was taken since this object was made, copied or loaded.
        """
        return None if self._last is None else self._last.mean_beta()

    @torch.no_grad()
    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        total_norm: Tensor | float | None = None,
    ) -> Any:
        """Take one step.

        Args:
            closure: Reevaluates the model, gradients included, and returns the loss.
            total_norm: The norm of all gradients, if the caller knows it, as from
                ``torch.nn.utils.clip_grad_norm_``. With ``norm_scope="global"`` it decides beta,
                in place of the norm of the gradients as they are now (after the clip). If it is
                not finite the step is skipped and counted, whatever ``skip_nonfinite`` says. A
                tensor is judged on its device, which costs two passes over the model; a float,
                on the host, costs none.

        Returns:
            The closure's loss, or None.

        Raises:
            ValueError: ``total_norm`` is negative, not a scalar, or stale: it came with a closure.
            RuntimeError: A gradient is sparse.
        """
        _check_total_norm(total_norm, closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        self._last = None
        buckets = [bucket for group in self.param_groups for bucket in self._gather(group)]
        if not buckets:
            return loss
        tensors = [bucket.params for bucket in buckets]
        if not isinstance(total_norm, Tensor | None) and not math.isfinite(total_norm):
            self._count_skipped(1)
            self._last = _Decision(tensors, [math.nan] * len(tensors), None)
            return loss
        total, keep = _judge(buckets, total_norm)
        if keep is not None:
            self._count_skipped(keep.logical_not())
        betas = self._decide(buckets, total, keep)
        self._last = _Decision(tensors, betas, keep)
        for bucket, beta in zip(buckets, betas, strict=True):
            group = bucket.group
            if group["second_moment"] == "rowcol":
                self._rowcol(bucket, beta, keep)
                continue
            starts = bucket.sort.starts
            musgd(
                bucket.params,
                bucket.grads,
                bucket.buffers,
                lr=group["lr"],
                momentum=beta,
                weight_decay=bucket.weight_decay,
                lr_in_buffer=group["lr_in_buffer"],
                dampening=group["dampening"],
                nesterov=group["nesterov"],
                maximize=bucket.maximize,
                foreach=bucket.foreach,
                keep=keep,
            )
            if starts:  # of a skipped step they are zeros, as good as none unless dampened
                for state, buffer in zip(bucket.states, bucket.buffers, strict=True):
                    state["momentum_buffer"] = buffer
        self._settle()
        return loss

    def _rowcol(self, bucket: _Bucket, beta: float | Tensor, keep: Tensor | None) -> None:
        group, states = bucket.group, bucket.states
        dtype, device = bucket.norm_dtype, bucket.device
        if bucket.ages is None:
            bucket.ages = self._age(states, dtype, device, keep)
        weights = moving_weight(bucket.ages)
        if keep is not None:
            keep = keep.to(device, non_blocking=True)
            weights = torch.where(keep, weights, 0.0)
            if isinstance(beta, Tensor):  # of NaN, it must not get into a buffer
                beta = torch.where(keep, beta, 1.0)
        options: dict[str, Any] = {
            "lr": group["lr"],
            "weight_decay": bucket.weight_decay,
            "nesterov": group["nesterov"],
            "maximize": bucket.maximize,
            "keep": keep,
        }
        each = isinstance(beta, Tensor) and beta.dim() > 0
        if not bucket.foreach:
            for i, (param, state, weight) in enumerate(
                zip(bucket.params, states, weights.unbind(), strict=True)
            ):
                if bucket.sort.starts:
                    state["momentum_buffer"] = torch.zeros_like(param.detach())
                if "exp_avg_sq" not in state:
                    state["exp_avg_sq"] = (
                        torch.zeros_like(param.detach(), dtype=dtype)
                        if param.dim() < 2
                        else torch.zeros((), dtype=dtype, device=device)
                    )
                single_tensor_rowcol(
                    param,
                    bucket.grads[i],
                    state["momentum_buffer"] if bucket.buffers else None,
                    state["exp_avg_sq"],
                    weight,
                    momentum=beta[i] if each else beta,  # type: ignore[index]
                    **options,
                )
            return
        for run in bucket.sort.runs:
            params, of = bucket.params[run], states[run]
            shape, lengths = params[0].shape, lengths_of(params)
            buffers = None
            if bucket.buffers:
                buffers = self._joined(
                    "momentum_buffer", of, shape, params[0].dtype, device, lengths
                )
            means = shape if len(shape) < 2 else shape[:0]
            multi_tensor_rowcol(
                params,
                bucket.grads[run],
                buffers,
                self._joined("exp_avg_sq", of, means, dtype, device, lengths).whole,
                weights[run],
                momentum=beta[run] if each else beta,  # type: ignore[index]
                **options,
            )

    def _age(
        self,
        states: list[dict[str, Any]],
        dtype: torch.dtype,
        device: torch.device,
        keep: Tensor | None,
    ) -> Tensor:
        """Count this step in n states: how often their running means have moved, shape (n,)."""
        ages = self._joined("step", states, torch.Size(()), dtype, device).whole
        return ages.add_(1 if keep is None else keep.to(ages, non_blocking=True))

    def _joined(
        self,
        name: str,
        states: list[dict[str, Any]],
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
        lengths: list[int] | None = None,
    ) -> Block:
        """What n states hold under a name, as one tensor of shape (n, *shape); zeros at first.

        With ``lengths`` they hold vectors, and ``shape`` is left alone. The states hold the parts.
        It is joined anew where one of them holds another tensor than at the last step: once
        loaded, copied or cast, or as the set of gradients changes; and where another dtype is
        asked for, as the parameters were cast.
        """
        held = [state.get(name) for state in states]
        key = name, id(states[0])
        block = self._blocks.get(key)
        if block is None or not block.is_held(held, dtype, device):
            size = (len(held), *shape) if lengths is None else (sum(lengths),)
            whole = torch.zeros(size, dtype=dtype, device=device)
            block = Block(whole, parts_of(whole, lengths))
            for state, part, value in zip(states, block.parts, held, strict=True):
                if value is not None:
                    part.copy_(value)
                state[name] = part
            self._blocks[key] = block
            self._joins = True
        self._used.add(key)
        return block

    def _settle(self) -> None:
        """Let go of the blocks that were joined anew, and of groups that are gone.

        A state that dropped out of a block gets a copy of its part, or it would hold all of it.
        """
        groups = {id(group) for group in self.param_groups}
        if not self._layouts.keys() <= groups:
            self._layouts = {key: self._layouts[key] for key in self._layouts.keys() & groups}
        if self._joins:
            self._blocks = {key: self._blocks[key] for key in self._used}
            wholes = {storage_of(block.whole) for block in self._blocks.values()}
            for state in self.state.values():
                for name, value in state.items():
                    if name in _JOINED_STATE and type(value) is Tensor:
                        of_all = value.untyped_storage().nbytes()
                        is_part = of_all > value.numel() * value.element_size()
                        if is_part and storage_of(value) not in wholes:
                            state[name] = value.clone()
        self._joins = False
        self._used.clear()

    def _parameters(self) -> Iterator[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _gather(self, group: dict[str, Any]) -> list[_Bucket]:
        """The group's tensors with a gradient, by device, dtype and whether they have a buffer."""
        layout = self._layouts.get(id(group))
        buckets = None if layout is None else layout.buckets(group, self.state)
        if buckets is None:
            layout = self._layouts[id(group)] = self._lay_out(group)
            buckets = layout.buckets(group, self.state)
            assert buckets is not None, "what was just sorted is as it was"
        for bucket in buckets:
            if bucket.adapts and group["decay_in_norm"]:
                bucket.absorb_decay()
        return buckets

    def _lay_out(self, group: dict[str, Any]) -> _Layout:
        sorts: dict[tuple[torch.device, torch.dtype, bool], _Sort] = {}
        without: list[Tensor] = []
        has_momentum = bool(group["momentum"] != 0)
        scaled = group["second_moment"] == "rowcol"
        for param in _by_shape(group["params"]) if scaled else group["params"]:
            if param.grad is None:
                without.append(param)
                continue
            if scaled and param.is_complex():
                raise RuntimeError(
                    "second_moment='rowcol' does not support complex parameters, such as this one "
                    f"of shape {tuple(param.shape)}; second_moment='none' does"
                )
            state = self.state[param]
            starts = has_momentum and state.get("momentum_buffer") is None
            key = (param.device, param.dtype, starts)
            sort = sorts.setdefault(key, _Sort(*key, [], []))
            sort.params.append(param)
            sort.states.append(state)
        return _Layout(list(group["params"]), without, has_momentum, scaled, list(sorts.values()))

    def _decide(
        self, buckets: list[_Bucket], total: Tensor | None, keep: Tensor | None
    ) -> list[float | Tensor]:
        """Each bucket's beta: a float where nothing adapts, else of shape () or (n,)."""
        relative_total: Tensor | None = None
        betas: list[float | Tensor] = []
        for bucket in buckets:
            momentum, factor = float(bucket.group["momentum"]), bucket.group["adapt_factor"]
            if not bucket.adapts:
                betas.append(momentum)
                continue
            auto = factor == "auto"
            if bucket.shares_norm:
                assert total is not None, "_judge measures it for buckets that share it"
                squared = total.square()
                if auto:
                    if relative_total is None:
                        relative_total = self._relative([self._keeper()], squared.reshape(1), keep)
                    squared = relative_total.reshape(())
                squared = squared.to(bucket.device, bucket.norm_dtype, non_blocking=True)
            else:
                squared = bucket.norms.square()
                if auto:
                    squared = self._relative(bucket.params, squared, keep, bucket)
            betas.append(momentum / (1 + (AUTO_FACTOR if auto else factor) * squared))
        return betas

    def _keeper(self) -> Tensor:
        """The parameter whose state holds the running mean of the squared total norm."""
        keeper: Tensor = next(
            group["params"][0]
            for group in self.param_groups
            if group["params"]
            and group["norm_scope"] == "global"
            and group["adapt_factor"] == "auto"
        )
        return keeper

    def _relative(
        self,
        owners: list[Tensor],
        squared: Tensor,
        keep: Tensor | None,
        bucket: _Bucket | None = None,
    ) -> Tensor:
        """n² over its running mean, which moves on.

        Args:
            owners: The n parameters whose state holds the means.
            squared: n², shape (n,).
            keep: Whether the means may move, shape ().
            bucket: The owners', to be told their ages.

        Returns:
            Shape (n,); 0 where no gradient has ever been other than zero.
        """
        states = bucket.states if bucket is not None else [self.state[p] for p in owners]
        device = owners[0].device
        average = self._joined("square_avg", states, torch.Size(()), squared.dtype, device).whole
        ages = self._age(states, squared.dtype, device, keep)
        if bucket is not None:
            bucket.ages = ages
        before = average.to(squared, non_blocking=True)
        moved = before.lerp(squared, moving_weight(ages.to(squared, non_blocking=True)))
        if keep is not None:
            moved = torch.where(keep.to(squared.device, non_blocking=True), moved, before)
        average.copy_(moved, non_blocking=True)
        return squared / moved.clamp(min=torch.finfo(moved.dtype).tiny)

    def _count_skipped(self, skipped: Tensor | int) -> None:
        state = self.state[next(self._parameters())]
        state["skipped_steps"] = self.skipped_steps + skipped


@dataclass
class _Sort:
    """Tensors of one group, device and dtype, all with a momentum buffer or all without."""

    device: torch.device
    dtype: torch.dtype
    starts: bool
    """Whether their momentum buffers are still to be made."""
    params: list[Tensor]
    states: list[dict[str, Any]]

    @cached_property
    def runs(self) -> list[slice]:
        """Those that are worked on at once."""
        return list(like_runs(self.params))

    @cached_property
    def shapes(self) -> list[torch.Size]:
        """Its tensors', when they were sorted."""
        return [param.shape for param in self.params]

    def holds(self, state: dict[Tensor, dict[str, Any]]) -> bool:
        """Whether its tensors are still where and what they were, with the states they had."""
        return (
            all(map(operator.is_, map(state.get, self.params), self.states))
            and self.shapes == [param.shape for param in self.params]
            and all(param.dtype is self.dtype for param in self.params)
            and all(param.device == self.device for param in self.params)
        )


@dataclass(frozen=True)
class _Layout:
    """A group's tensors, sorted. It is kept: to sort hundreds takes longer than to look again."""

    given: list[Tensor]
    without: list[Tensor]
    """Those that had no gradient."""
    has_momentum: bool
    scaled: bool
    sorts: list[_Sort]

    def buckets(
        self, group: dict[str, Any], state: dict[Tensor, dict[str, Any]]
    ) -> list[_Bucket] | None:
        """The sorted tensors with their gradients of now; None where they are to be sorted anew.

        Raises:
            RuntimeError: A gradient is sparse.
        """
        if (
            not _are(group["params"], self.given)
            or bool(group["momentum"] != 0) is not self.has_momentum
            or (group["second_moment"] == "rowcol") is not self.scaled
            or any(param.grad is not None for param in self.without)
        ):
            return None
        buckets = []
        for sort in self.sorts:
            if not sort.holds(state):
                return None
            grads, buffers = [], []
            for param in sort.params:
                grad = param.grad
                if grad is None:
                    return None
                if grad.is_sparse:
                    raise RuntimeError(
                        "MuSGD does not support sparse gradients, such as this one of shape "
                        f"{tuple(grad.shape)}; torch.optim.SGD does"
                    )
                grads.append(grad)
            if self.has_momentum:
                buffers = [state.get("momentum_buffer") for state in sort.states]
                if any((buffer is None) is not sort.starts for buffer in buffers):
                    return None
            buckets.append(_Bucket(group, sort, grads, buffers))
        return buckets


@dataclass
class _Bucket:
    """A sort of tensors in one step."""

    group: dict[str, Any]
    sort: _Sort
    grads: list[Tensor]
    buffers: list[Tensor | None]
    """None of them, unless there is momentum."""
    ages: Tensor | None = None
    """How often each tensor's running means have moved, this step included, once it is counted."""

    def __post_init__(self) -> None:
        self.weight_decay: float = self.group["weight_decay"]
        self.maximize: bool = self.group["maximize"]

    @property
    def params(self) -> list[Tensor]:
        """Its tensors."""
        return self.sort.params

    @property
    def states(self) -> list[dict[str, Any]]:
        """Theirs, in the optimizer."""
        return self.sort.states

    @property
    def device(self) -> torch.device:
        """Where all its tensors are."""
        return self.sort.device

    @property
    def adapts(self) -> bool:
        """Whether beta depends on a norm."""
        return bool(self.group["adapt_factor"] != 0 and self.group["momentum"] != 0)

    @property
    def shares_norm(self) -> bool:
        """Whether beta depends on the norm of all gradients."""
        return self.adapts and self.group["norm_scope"] == "global"

    @cached_property
    def foreach(self) -> bool:
        """Whether to work on lists of tensors."""
        asked: bool | None = self.group["foreach"]
        return _foreach_by_default(self.params) if asked is None else asked

    @property
    def norm_dtype(self) -> torch.dtype:
        """That of norms and betas."""
        return _norm_dtype(self.sort.dtype)

    @cached_property
    def norms(self) -> Tensor:
        """Each gradient's norm, shape (n,)."""
        # Squares of half-precision values overflow. The norm of complex ones takes no dtype.
        dtype = None if self.grads[0].is_complex() else self.norm_dtype
        if self.foreach:
            return torch.stack(torch._foreach_norm(self.grads, 2, dtype))
        norms = torch.stack([torch.linalg.vector_norm(grad, dtype=dtype) for grad in self.grads])
        # Of sharded gradients (FSDP2's DTensor) these are each rank's part, to be summed.
        return norms.full_tensor() if hasattr(norms, "full_tensor") else norms

    def absorb_decay(self) -> None:
        """Turn the gradients into what the update starts from: sign and weight decay included."""
        if self.maximize:
            self.grads = [-grad for grad in self.grads]
        if self.weight_decay != 0:
            pairs = zip(self.grads, self.params, strict=True)
            self.grads = [grad.add(param, alpha=self.weight_decay) for grad, param in pairs]
        self.weight_decay, self.maximize = 0.0, False


@dataclass(frozen=True)
class _Decision:
    """The betas of one step. Holds no gradient: those are freed between steps."""

    params: list[list[Tensor]]
    betas: list[float | Tensor]
    keep: Tensor | None

    def mean_beta(self) -> Tensor:
        """Weighted by the tensors' numbers of values; NaN if the step was not kept."""
        total = sum(param.numel() for params in self.params for param in params)
        mean = torch.zeros((), device=self.params[0][0].device)
        for params, beta in zip(self.params, self.betas, strict=True):
            if not isinstance(beta, Tensor):
                beta = torch.full((), beta, device=params[0].device)
            shares = torch.tensor([param.numel() / total for param in params], dtype=beta.dtype)
            weighted = shares.to(beta.device, non_blocking=True) * beta
            mean += weighted.sum().to(mean.device, non_blocking=True)
        return mean if self.keep is None else torch.where(self.keep, mean, math.nan)


def _judge(
    buckets: list[_Bucket], total_norm: Tensor | float | None
) -> tuple[Tensor | None, Tensor | None]:
    """The norm of all gradients, and whether the step may be taken.

    Returns:
        The norm, shape (), or None if nothing asks for it; and a bool tensor of shape (), or None
        if the step is to be taken whatever the gradients hold.
    """
    device, dtype = buckets[0].device, buckets[0].norm_dtype
    if isinstance(total_norm, Tensor):
        total = total_norm.detach().reshape(()).to(device, dtype, non_blocking=True)
        return total, torch.isfinite(total)
    if total_norm is not None:
        return torch.full((), float(total_norm), dtype=dtype, device=device), None
    guarded = any(bucket.group["skip_nonfinite"] for bucket in buckets)
    if not guarded and not any(bucket.shares_norm for bucket in buckets):
        return None, None
    norms = torch.cat([bucket.norms.to(device, non_blocking=True) for bucket in buckets])
    total = torch.linalg.vector_norm(norms)
    return total, torch.isfinite(total) if guarded else None


def _are(held: list[Tensor | None], parts: list[Tensor]) -> bool:
    """Whether they are the very same."""
    return len(held) == len(parts) and all(map(operator.is_, held, parts))


def _by_shape(params: list[Tensor]) -> Iterator[Tensor]:
    """What is worked on together side by side: like shapes, and vectors, those of a length too."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for param in params:
        shapes.setdefault(param.shape, []).append(param)
    return chain.from_iterable(shapes[shape] for shape in sorted(shapes, key=len))


def _foreach_by_default(params: list[Tensor]) -> bool:
    device, dtype = params[0].device, params[0].dtype
    # torch's SGD loops on the CPU, where lists are faster (benchmarks/optimizer_step.py), but for
    # half precision: there _foreach_mul_ rounds its scalar, .9 to .8984.
    if device.type == "cpu" and dtype in (torch.float16, torch.bfloat16):
        return False
    plain = all(type(param) in (Tensor, Parameter) for param in params)
    return plain and _device_has_foreach_support(device)


def _norm_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32


def musgd(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffer_list: list[Tensor | None],
    *,
    lr: float | Tensor,
    momentum: float | Tensor,
    weight_decay: float,
    lr_in_buffer: bool,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    foreach: bool | None = None,
    keep: Tensor | None = None,
) -> None:
    """Functional form: SGD whose momentum may differ from tensor to tensor and lie on the device.

    See :class:`MuSGD` for the update; here ``momentum`` is beta itself.

    Args:
        params: n tensors of one device and dtype, changed in place.
        grads: Their gradients, left as they are.
        momentum_buffer_list: Their buffers, changed in place; or n times None at the first step,
            replaced by new ones. Empty: no momentum.
        lr: Learning rate.
        momentum: A float, with which the arithmetic is that of ``torch.optim.SGD``, or a tensor
            of shape (), for all, or (n,), for one each.
        weight_decay: L2 penalty.
        lr_in_buffer: Whether lr goes into the buffer.
        dampening: As in ``torch.optim.SGD``.
        nesterov: As in ``torch.optim.SGD``.
        maximize: As in ``torch.optim.SGD``.
        foreach: Whether to work on lists of tensors. None: see :class:`MuSGD`.
        keep: A bool tensor of shape (): False turns the step into nothing, whatever the gradients
            hold.

    Raises:
        ValueError: Some buffers are None and some are not.
    """
    if not params:
        return
    if 0 < sum(buffer is None for buffer in momentum_buffer_list) < len(params):
        raise ValueError("momentum_buffer_list must hold buffers, or None, but not both")
    if isinstance(lr, Tensor) and lr.dim():
        lr = lr.squeeze()
    if foreach is None:
        foreach = _foreach_by_default(params)
    if keep is not None:
        keep = keep.to(params[0].device, non_blocking=True)
    decays, aheads = _coefficients(momentum, keep, params[0])
    function = _multi_tensor_musgd if foreach else _single_tensor_musgd
    for span in _spans(params) if foreach else [slice(None)]:
        buffers = momentum_buffer_list[span]
        function(
            params[span],
            grads[span],
            buffers,
            decays=decays[span] if isinstance(decays, tuple) else decays,
            aheads=aheads[span] if isinstance(aheads, tuple) else aheads,
            lr=lr,
            weight_decay=weight_decay,
            lr_in_buffer=lr_in_buffer,
            dampening=dampening,
            nesterov=nesterov,
            maximize=maximize,
            keep=keep,
        )
        momentum_buffer_list[span] = buffers


def _spans(params: list[Tensor]) -> Iterator[slice]:
    """Slices of the list that are worked on in one go."""
    if params[0].device.type != "cpu":
        yield slice(None)
        return
    start = values = 0
    for i, param in enumerate(params):
        if i > start and values + param.numel() > CPU_SPAN:
            yield slice(start, i)
            start, values = i, 0
        values += param.numel()
    yield slice(start, None)


_Coefficient = float | Tensor | tuple[Tensor, ...]
"""One for all tensors, on the host or on the device, or one each."""


def _coefficients(
    momentum: float | Tensor, keep: Tensor | None, param: Tensor
) -> tuple[_Coefficient, _Coefficient]:
    """What the buffers are multiplied by, and what Nesterov adds of them."""
    decay = ahead = momentum
    if keep is not None:
        if isinstance(momentum, Tensor):
            # Of ahead, too: a beta of NaN must not get into an update that comes to nothing.
            decay = ahead = torch.where(keep, momentum, 1.0)
        else:
            full = torch.full((), momentum, dtype=_norm_dtype(param.dtype), device=param.device)
            decay = torch.where(keep, full, 1.0)
    return _unbound(decay), _unbound(ahead)


def _unbound(value: float | Tensor) -> _Coefficient:
    return value.unbind() if isinstance(value, Tensor) and value.dim() else value


def _single_tensor_musgd(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffer_list: list[Tensor | None],
    *,
    decays: _Coefficient,
    aheads: _Coefficient,
    lr: float | Tensor,
    weight_decay: float,
    lr_in_buffer: bool,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    keep: Tensor | None,
) -> None:
    zero = grads[0].new_zeros(())
    for i, param in enumerate(params):
        grad = -grads[i] if maximize else grads[i]
        if weight_decay != 0:
            grad = grad.add(param, alpha=weight_decay)
        if keep is not None:
            grad = torch.where(keep, grad, zero)
        if lr_in_buffer:
            grad = grad * lr
        update = grad
        if momentum_buffer_list:
            buffer = momentum_buffer_list[i]
            if buffer is None:
                buffer = momentum_buffer_list[i] = grad.clone()
            else:
                decay = decays[i] if isinstance(decays, tuple) else decays
                buffer.mul_(decay).add_(grad, alpha=1 - dampening)
            update = buffer
            if nesterov:
                ahead = aheads[i] if isinstance(aheads, tuple) else aheads
                if isinstance(ahead, Tensor):
                    # A half-precision parameter of no dimension would be promoted to ahead's dtype.
                    update = torch.addcmul(grad, buffer, ahead).to(grad.dtype)
                else:
                    update = grad.add(buffer, alpha=ahead)
        if keep is not None:
            update = update * keep
        param.add_(update, alpha=-1 if lr_in_buffer else -lr)  # type: ignore[arg-type]


def _multi_tensor_musgd(
    params: list[Tensor],
    grads: list[Tensor],
    momentum_buffer_list: list[Tensor | None],
    *,
    decays: _Coefficient,
    aheads: _Coefficient,
    lr: float | Tensor,
    weight_decay: float,
    lr_in_buffer: bool,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    keep: Tensor | None,
) -> None:
    owned = False  # whether the gradients are copies, to be written to
    if maximize:
        grads, owned = list(torch._foreach_neg(grads)), True
    if weight_decay != 0:
        grads, owned = list(torch._foreach_add(grads, params, alpha=weight_decay)), True
    if lr_in_buffer:
        grads, owned = list(torch._foreach_mul(grads, lr)), True
    if (nesterov or keep is not None) and not owned:
        grads = [grad.clone() for grad in grads]
    if keep is not None:
        # There is no _foreach_where, and 0 times NaN is NaN; but the integer 0 times its bits is 0.
        bits = [_as_integers(grad) for grad in grads]
        torch._foreach_mul_(bits, keep.to(bits[0].dtype))
    updates = grads
    if momentum_buffer_list:
        buffers = [buffer for buffer in momentum_buffer_list if buffer is not None]
        if buffers:
            torch._foreach_mul_(buffers, decays)
            torch._foreach_add_(buffers, grads, alpha=1 - dampening)
        else:
            buffers = [grad.clone() for grad in grads]
            momentum_buffer_list[:] = buffers
        if not nesterov:
            updates = buffers
        elif isinstance(aheads, Tensor | tuple):
            each = aheads if isinstance(aheads, tuple) else (aheads,) * len(params)
            torch._foreach_addcmul_(grads, buffers, each)
        else:
            torch._foreach_add_(grads, buffers, alpha=aheads)
    if keep is not None:
        updates = list(torch._foreach_mul(updates, keep.to(params[0].dtype)))
    torch._foreach_add_(params, updates, alpha=-1 if lr_in_buffer else -lr)  # type: ignore[arg-type]


def _as_integers(tensor: Tensor) -> Tensor:
    """The same memory, its floating-point values read as integers of their width."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.view(_INTEGERS[tensor.element_size()])


def _check_options(options: dict[str, Any]) -> None:
    lr, momentum, weight_decay = options["lr"], options["momentum"], options["weight_decay"]
    dampening, factor = options["dampening"], options["adapt_factor"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, not of shape {tuple(lr.shape)}")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if not momentum >= 0.0:
        raise ValueError(f"Invalid momentum value: {momentum}")
    if not weight_decay >= 0.0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")
    if factor != "auto" and (isinstance(factor, str) or not 0.0 <= factor < math.inf):
        raise ValueError(f"Invalid adapt_factor: {factor!r} (a number >= 0, or 'auto')")
    if options["norm_scope"] not in ("tensor", "global"):
        raise ValueError(f"Invalid norm_scope: {options['norm_scope']!r} ('tensor' or 'global')")
    if options["second_moment"] not in ("none", "rowcol"):
        raise ValueError(
            f"Invalid second_moment: {options['second_moment']!r} ('none' or 'rowcol')"
        )
    if options["second_moment"] == "rowcol":
        alone = {
            "dampening": 0,
            "lr_in_buffer": False,
            "decay_in_norm": False,
            "norm_scope": "tensor",
        }
        for name, only in alone.items():
            if options[name] != only:
                raise ValueError(
                    f"second_moment='rowcol' requires {name}={only!r}, not {options[name]!r}"
                )
    if options["nesterov"] and (momentum <= 0 or dampening != 0):
        raise ValueError(
            "Nesterov momentum requires a momentum and zero dampening, "
            f"not momentum={momentum}, dampening={dampening}"
        )


def _check_total_norm(total_norm: Tensor | float | None, closure: object) -> None:
    if total_norm is None:
        return
    if closure is not None:
        raise ValueError(f"total_norm={total_norm} is stale once the closure has run: give one")
    if isinstance(total_norm, Tensor):
        if total_norm.numel() != 1:
            raise ValueError(
                f"total_norm must be 1-element, not of shape {tuple(total_norm.shape)}"
            )
    elif total_norm < 0:
        raise ValueError(f"Invalid total_norm: {total_norm}")
