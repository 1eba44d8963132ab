"""What a board without a meter most likely draws: a model of it, never a measurement."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from musgd_cli.hardware import boards
from musgd_cli.hardware.conditions import busy_s, clocks_khz
from musgd_cli.hardware.power.meter import Clock, Reading, WindowMeter
from musgd_cli.hardware.tree import Tree

_HZ = 2.0


@dataclass(frozen=True)
class _Model:
    """Watts of a board by what its cores do: idle, and with all of them busy at their top clock."""

    idle_w: float
    busy_w: float
    cores: int


# Third-party figures of the current into the 5 V input, 540 mA idle and 1280 mA with four cores
# stressed (notes/boards.md, section 2); USB, HDMI and the network are as they were there.
_MODELS = {"pi4b": _Model(idle_w=2.7, busy_w=6.4, cores=4)}


@dataclass(frozen=True)
class _Activity:
    busy_s: float
    """CPU seconds since boot."""
    clock: float
    """Of the top clock, the cores' mean share."""


class ModelMeter(WindowMeter[_Activity]):
    """Works out watts from how busy the cores are, and how fast they run.

    Power is the idle board's, and for each busy core its share of what all of them add, in
    proportion to the clock.
    """

    def __init__(self, name: str, model: _Model, tree: Tree, clock: Clock) -> None:
        super().__init__(f"model:{name}", "board", "estimated", _HZ, period_s=1 / _HZ, clock=clock)
        self._model = model
        self._tree = tree

    def read(self) -> _Activity:
        """Return what the cores have done so far, and do now."""
        busy, clock = busy_s(self._tree), _clock_share(self._tree)
        if busy is None or clock is None:
            raise OSError("the kernel does not tell how busy its cores are, or how fast")
        return _Activity(busy, clock)

    def _energy_j(self, earlier: Reading[_Activity], later: Reading[_Activity]) -> float:
        (from_s, before), (to_s, after) = earlier, later
        model = self._model
        core_w = (model.busy_w - model.idle_w) / model.cores
        clock = (before.clock + after.clock) / 2
        return model.idle_w * (to_s - from_s) + core_w * clock * (after.busy_s - before.busy_s)


def estimates(tree: Tree, clock: Clock) -> Iterator[ModelMeter]:
    """Yield the model of this board, where there is one and the kernel tells what it needs."""
    board = boards.by_compatible(tree.device_tree("compatible"))
    model = _MODELS.get(board.name) if board else None
    if board and model:
        meter = ModelMeter(board.name, model, tree, clock)
        if meter.answers():
            yield meter


def _clock_share(tree: Tree) -> float | None:
    now, top = clocks_khz(tree, "scaling_cur_freq"), clocks_khz(tree, "cpuinfo_max_freq")
    return sum(now) / sum(top) if now and len(now) == len(top) else None
