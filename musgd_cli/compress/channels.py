"""Which channels of a detection network can go, in which order, and what goes with them.

torch-pruning finds by a trace what belongs together: a convolution's outputs, their normalization,
the inputs of what reads them, what they are added to. Three things it cannot know are added here:

- C3k2, C2f and C2PSA cut the output of one convolution in two equal halves. For the trace that
  convolution is two, equal in what they compute; both lose equally many channels, each its own.
- Both heads have a branch of each kind at each level; so do theirs.
- Attention cuts its width into heads, and stays as it is, with the channels it is added to.

Import after `sandbox.prepare`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from ultralytics.nn import modules as blocks
from ultralytics.nn.modules.block import C3k, PSABlock

from musgd_cli.compress.silence import silence
from musgd_cli.errors import UnsupportedError

LEAST_KEPT = 0.25
"""No layer loses more than three quarters of its channels."""

_HALVED = (blocks.C2f, blocks.C3k2, blocks.C2PSA)
_KNOWN = (
    *_HALVED,
    *(blocks.Conv, blocks.DWConv, blocks.Concat, blocks.SPPF, blocks.Bottleneck, blocks.C3),
    *(C3k, PSABlock, blocks.Attention, blocks.Detect, blocks.DFL),
)
"""Ultralytics' layers whose forward pass is accounted for here."""

_TWIN_BRANCHES = (("cv2", "one2one_cv2"), ("cv3", "one2one_cv3"))
_TRACED_PX = 64


def step(width: int) -> int:
    """Return by how many channels a layer of ``width`` shrinks at a time.

    16 floats are a vector of AVX-512, and a block of ONNX Runtime there; narrow layers go by 8.
    Measured on an EPYC, ONNX Runtime, one thread, 256 px, each layer narrowed alike: by 30 %, the
    steps of 8 and of 16 leave .51 and .58 of the multiply-accumulates and are 1.43 and 1.51 times
    as fast; by 50 %, .30 and .37, and 2.59 and 2.52 times.
    """
    return 16 if width >= 32 else 8


@dataclass(frozen=True)
class Cut:
    """One step of the order in which channels go."""

    unit: int
    """Which channels: an index of `_Graph.units`, the same for every copy of a network."""
    channels: int
    """How many more of each of the unit's layers."""
    removed: float
    """Share of all removable channels that is gone after it."""
    macs: float
    """Share of the convolutions' multiply-accumulates that is left after it."""


def removal_order(model: nn.Module, gates: Mapping[str, Tensor], imgsz: int) -> list[Cut]:
    """Order what can be removed, up to `LEAST_KEPT`: least loss for the work saved first.

    Args:
        model: A detection model; it is left as it is.
        gates: What `musgd_cli.train.gradients.gate_gradients` found.
        imgsz: Side of the input that work is counted for, pixels.

    Raises:
        UnsupportedError: It has layers that cannot be pruned.
    """
    graph = _Graph(model, gates)
    work = _Work(graph, imgsz)
    whole = work.macs
    left = [unit.width for unit in graph.units]
    n_channels = sum(unit.width * len(unit.members) for unit in graph.units)
    gone = 0
    cuts: list[Cut] = []
    while found := min(_steps(graph.units, left, work), default=None):
        _, index, channels = found
        left[index] -= channels
        work.remove(graph.units[index], channels)
        gone += channels * len(graph.units[index].members)
        cuts.append(Cut(index, channels, gone / n_channels, work.macs / whole))
    return cuts


def prune(model: nn.Module, gates: Mapping[str, Tensor], cuts: Iterable[Cut]) -> nn.Module:
    """Return a copy of a model without some of its channels, made of the same stock layers.

    Args:
        model: What the cuts were found for; it is left as it is.
        gates: Likewise.
        cuts: The first so many of what `removal_order` returned.
    """
    graph = _Graph(model, gates)
    n_removed: dict[int, int] = defaultdict(int)
    for cut in cuts:
        n_removed[cut.unit] += cut.channels
    for index, n in n_removed.items():
        graph.remove(graph.units[index], n)
    return graph.whole()


def count_macs(model: nn.Module, imgsz: int) -> int:
    """Count the convolutions' multiply-accumulates for one image through one head."""
    return sum(
        pixels * conv.in_channels // conv.groups * conv.out_channels
        for conv, pixels in _convolutions(model, imgsz).items()
    )


def widths(model: nn.Module) -> dict[str, int]:
    """Return the output channels of each convolution, by name."""
    return {
        name: module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    }


# ------------------------------------------------------------------------------- what goes together


@dataclass(frozen=True)
class _Member:
    """Channels that go together wherever they are read."""

    root: nn.Module
    """One of the layers that give them."""
    handler: Any
    """torch-pruning's function for it."""
    loss: Tensor
    """(width,): what each costs when it goes."""


@dataclass(frozen=True)
class _Unit:
    """Members that lose equally many channels, each those that cost it least."""

    members: tuple[_Member, ...]
    ends: Mapping[tuple[nn.Module, str], float]
    """Convolution and side of it ("in", "out"; "both" of a depthwise one) to how many of its
    channels go with one of each member."""

    @property
    def width(self) -> int:
        return len(self.members[0].loss)

    @cached_property
    def _costs(self) -> list[float]:
        """What it costs that 0, 1, … channels of each member are gone, the least dear first."""
        each = sum(member.loss.double().sort().values for member in self.members)
        return [0.0, *torch.as_tensor(each).cumsum(0).tolist()]

    def cost(self, before: int, after: int) -> float:
        """Return what goes with it when ``before`` channels become ``after``."""
        return self._costs[self.width - after] - self._costs[self.width - before]


class _Halves(nn.Module):
    """A C3k2, C2f or C2PSA whose first convolution is two."""

    def __init__(self, block: Any, gates: dict[nn.Module, Tensor]) -> None:
        super().__init__()
        middle = block.cv1.conv.out_channels // 2
        self.first = _part(block.cv1, slice(middle), gates)
        self.second = _part(block.cv1, slice(middle, None), gates)
        self.cv2, self.m = block.cv2, block.m
        self.i, self.f = getattr(block, "i", None), getattr(block, "f", None)
        self.in_turn = isinstance(block, blocks.C2PSA)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.first(x), self.second(x)]
        if self.in_turn:
            parts[1] = self.m(parts[1])
        else:
            for layer in self.m:
                parts.append(layer(parts[-1]))
        joined: Tensor = self.cv2(torch.cat(parts, 1))
        return joined

    def restore(self, block: Any) -> None:
        """Give ``block`` the two convolutions as one again."""
        conv, norm = block.cv1.conv, block.cv1.bn
        halves: Any = (self.first, self.second)
        conv.weight = nn.Parameter(torch.cat([half.conv.weight.data for half in halves]))
        conv.out_channels, conv.in_channels = conv.weight.shape[:2]
        for name in ("weight", "bias"):
            joined = torch.cat([getattr(half.bn, name).data for half in halves])
            setattr(norm, name, nn.Parameter(joined))
        for name in ("running_mean", "running_var"):
            setattr(norm, name, torch.cat([getattr(half.bn, name) for half in halves]))
        norm.num_features = conv.out_channels
        block.c = conv.out_channels // 2


def _part(conv: Any, kept: slice, gates: dict[nn.Module, Tensor]) -> nn.Module:
    part: Any = deepcopy(conv)
    gates[part.bn] = gates[conv.bn][:, kept]
    indices = range(conv.conv.out_channels)
    others = sorted(set(indices) - set(indices[kept]))
    torch_pruning.prune_conv_out_channels(part.conv, others)
    torch_pruning.prune_batchnorm_out_channels(part.bn, others)
    narrowed: nn.Module = part
    return narrowed


class _Graph:
    """A copy of a network, open to be narrowed.

    Args:
        model: The network; it is left as it is.
        gates: By name of a normalization, (batches, channels).
    """

    def __init__(self, model: nn.Module, gates: Mapping[str, Tensor]) -> None:
        _require_known(model)
        self.model: Any = deepcopy(model).eval().requires_grad_(True)
        norms = dict(self.model.named_modules())
        self._gates: dict[nn.Module, Tensor] = {norms[name]: g for name, g in gates.items()}
        self._halved = list(self._halve())
        self._producers = {
            module.bn
            for module in self.model.modules()
            if isinstance(module, blocks.Conv) and module.conv.groups == 1
        }
        with silence():
            self._trace = torch_pruning.DependencyGraph().build_dependency(
                self.model, torch.zeros(1, 3, _TRACED_PX, _TRACED_PX), forward_fn=_raw
            )
            self.units = self._find_units()

    def remove(self, unit: _Unit, n: int) -> None:
        """Remove the ``n`` channels of each member that cost least."""
        for member in unit.members:
            least = member.loss.argsort()[:n].tolist()
            self._trace.get_pruning_group(member.root, member.handler, least).prune()

    def whole(self) -> nn.Module:
        """Return the network, made of stock layers again; the graph is of no more use."""
        for name, block, halves in self._halved:
            halves.restore(block)
            self.model.set_submodule(name, block)
        narrowed: nn.Module = self.model
        narrowed.zero_grad()
        return narrowed

    def _halve(self) -> Iterator[tuple[str, nn.Module, _Halves]]:
        for name, block in list(self.model.named_modules()):
            if isinstance(block, _HALVED):
                halves = _Halves(block, self._gates)
                self.model.set_submodule(name, halves)
                yield name, block, halves

    def _find_units(self) -> list[_Unit]:
        groups = list(self._trace.get_all_groups(list(self._fixed()), (nn.Conv2d,)))
        group_of = {
            id(dep.target.module): number
            for number, group in enumerate(groups)
            for dep, _ in group
            if self._trace.is_out_channel_pruning_fn(dep.handler)
        }
        sets = _Sets(len(groups))
        for first, second in self._equals():
            if id(first) in group_of or id(second) in group_of:
                sets.join(group_of.get(id(first)), group_of.get(id(second)))
        return [self._unit([groups[i] for i in joined]) for joined in sets.free()]

    def _fixed(self) -> Iterator[nn.Module]:
        """Yield the convolutions whose outputs have a meaning by their place."""
        for branch in _branches(self.model.model[-1]):
            yield from (level[-1] for level in branch)
        for module in self.model.modules():
            if isinstance(module, blocks.Attention):
                yield from (module.qkv.conv, module.proj.conv, module.pe.conv)

    def _equals(self) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Yield pairs of convolutions that keep equally many channels."""
        for _, _, halves in self._halved:
            pair: Any = halves.first, halves.second
            yield pair[0].conv, pair[1].conv
        head = self.model.model[-1]
        for many, one in _TWIN_BRANCHES:
            if getattr(head, one, None) is not None:
                branches = getattr(head, many).modules(), getattr(head, one).modules()
                for pair in zip(*branches, strict=True):
                    if isinstance(pair[0], nn.Conv2d):
                        yield pair

    def _unit(self, groups: Sequence[Any]) -> _Unit:
        members = []
        ends: dict[tuple[nn.Module, str], float] = defaultdict(float)
        for group in groups:
            root, width = group[0].dep.target.module, len(group[0].idxs)
            members.append(_Member(root, group[0].dep.handler, self._loss(group)))
            for dep, indices in group:
                conv = dep.target.module
                if isinstance(conv, nn.Conv2d):
                    is_out = self._trace.is_out_channel_pruning_fn(dep.handler)
                    side = "both" if conv.groups > 1 else "out" if is_out else "in"
                    ends[conv, side] += len(indices) / width
        return _Unit(tuple(members), ends)

    def _loss(self, group: Any) -> Tensor:
        """Estimate what each channel of a group costs when it goes, in squared loss.

        The mean over batches of the squared derivative by a gate on it (Molchanov et al.,
        "Importance Estimation for Neural Network Pruning", CVPR 2019, with their gates after batch
        normalization). Of layers whose outputs are added, all gates close together.

        Measured on BCCD at 256 px, mAP50-95 on test after 10 epochs, the parent at .598: with .73
        of the multiply-accumulates left .601 and .603, and .580 by the L2 norm of all weights of a
        channel, each layer narrowed alike; with .39 left .573, and by its square root, of single
        images' gradients, .557. Before fine-tuning: .308 and .002 with .73 left.
        """
        total = torch.zeros(1)
        for item in group:
            norm = item.dep.target.module
            if norm in self._producers:
                gates = self._gates[norm]
                placed = torch.zeros(len(gates), len(group[0].idxs))
                placed[:, item.root_idxs] = gates[:, item.idxs]
                total = total + placed
        return (total**2).mean(0)


class _Sets:
    """Numbers 0 to n - 1 joined into sets, some of which are fixed."""

    def __init__(self, n: int) -> None:
        self._fixed = n
        self._above = list(range(n + 1))

    def join(self, a: int | None, b: int | None) -> None:
        """Join two sets; ``None`` stands for what is fixed."""
        ends = (self._top(self._fixed if i is None else i) for i in (a, b))
        low, high = sorted(ends)
        self._above[low] = high

    def free(self) -> Iterator[list[int]]:
        """Yield the sets without what is fixed."""
        sets: dict[int, list[int]] = defaultdict(list)
        for i in range(self._fixed):
            sets[self._top(i)].append(i)
        sets.pop(self._top(self._fixed), None)
        yield from sets.values()

    def _top(self, i: int) -> int:
        while self._above[i] != i:
            i = self._above[i]
        return i


# ------------------------------------------------------------------------------------ what it saves


class _Work:
    """The multiply-accumulates of a network whose layers are thought narrower."""

    def __init__(self, graph: _Graph, imgsz: int) -> None:
        self._pixels = _convolutions(graph.model, imgsz)
        self._sides: dict[nn.Module, tuple[float, float]] = {
            conv: (conv.in_channels / conv.groups, conv.out_channels) for conv in self._pixels
        }

    @property
    def macs(self) -> float:
        """All that is left."""
        return sum(math.prod(sides) * self._pixels[conv] for conv, sides in self._sides.items())

    def saved(self, unit: _Unit, n: int) -> float:
        """Return what ``n`` channels less of a unit save."""
        return sum(
            (math.prod(self._sides[conv]) - math.prod(sides)) * self._pixels[conv]
            for conv, sides in self._narrowed(unit, n).items()
        )

    def remove(self, unit: _Unit, n: int) -> None:
        """Think ``n`` channels of a unit away."""
        self._sides.update(self._narrowed(unit, n))

    def _narrowed(self, unit: _Unit, n: int) -> dict[nn.Module, tuple[float, float]]:
        found: dict[nn.Module, tuple[float, float]] = {}
        for (conv, side), times in unit.ends.items():
            if conv in self._sides:  # the other head's are not
                inputs, outputs = found.get(conv, self._sides[conv])
                if side == "in":
                    found[conv] = (inputs - n * times, outputs)
                else:
                    found[conv] = (inputs, outputs - n * times)
        return found


def _steps(
    units: Sequence[_Unit], left: Sequence[int], work: _Work
) -> Iterator[tuple[float, int, int]]:
    """Yield each unit's next step: what it costs for the work it saves, the unit, the channels."""
    for index, (unit, width) in enumerate(zip(units, left, strict=True)):
        by = step(unit.width)
        n = width % by or by
        if width - n >= max(by, LEAST_KEPT * unit.width):
            yield unit.cost(width, width - n) / work.saved(unit, n), index, n


def _convolutions(model: Any, imgsz: int) -> dict[Any, int]:
    """Return the convolutions of the backbone and one head, and what each does a channel pair.

    That is its output's pixels times its kernel's.
    """
    found: dict[Any, int] = {}

    def note(conv: Any, _: Any, output: Tensor) -> None:
        found[conv] = math.prod(output.shape[2:]) * math.prod(conv.kernel_size)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, nn.Conv2d)]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        _raw(model, torch.zeros(1, 3, imgsz, imgsz), n_branches=2)
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return found


# -------------------------------------------------------------------------------------- the network


def _raw(model: Any, x: Tensor, n_branches: int | None = None) -> list[Tensor]:
    """Run a network up to the last convolutions of its heads' branches.

    What decodes their outputs multiplies the paths of a trace until it never ends.
    """
    done: list[Any] = []

    def inputs(layer: Any) -> Any:
        if isinstance(layer.f, int):
            return x if layer.f == -1 else done[layer.f]
        return [x if i == -1 else done[i] for i in layer.f]

    *layers, head = model.model
    for layer in layers:
        x = layer(inputs(layer))
        done.append(x)
    features = inputs(head)
    return [
        level(feature)
        for branch in _branches(head)[:n_branches]
        for level, feature in zip(branch, features, strict=True)
    ]


def _branches(head: Any) -> list[Any]:
    """Return the branches of the one-to-many head, then of the one-to-one head, if there is one."""
    names = [pair[i] for i in (0, 1) for pair in _TWIN_BRANCHES]
    return [branch for name in names if (branch := getattr(head, name, None)) is not None]


def _require_known(model: nn.Module) -> None:
    unknown = {
        type(module).__name__
        for module in list(model.modules())[1:]
        if type(module).__module__.startswith("ultralytics") and type(module) not in _KNOWN
    }
    if unknown:
        raise UnsupportedError(
            f"musgd cannot prune layers of the kind {', '.join(sorted(unknown))}",
            "prune a model of YOLO26, YOLO11 or YOLOv8",
        )
