"""The images of an export: those that calibrate, and those held out, on which models are judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from musgd_cli import data
from musgd_cli.compress import calibration
from musgd_cli.compress.calibration import CalibrationSet
from musgd_cli.compress.gate import Scorer
from musgd_cli.compress.selection import Order
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError


class Work(Protocol):
    """An order, and whether any of its models is calibrated."""

    @property
    def order(self) -> Order:
        """What is made for one target."""
        ...

    @property
    def calibrates(self) -> bool:
        """Whether int8 is among it."""
        ...


@dataclass(frozen=True)
class Chosen:
    """The images of one order; ``None`` where it has no use for them or no data set is known."""

    calibrating: CalibrationSet | None
    scorer: Scorer | None


def choose(works: Sequence[Work], on_warning: Callable[[str], None]) -> list[Chosen]:
    """Choose for each order the images that calibrate, and a scorer of those held out.

    What calibrates for one order is scored for none, so that all are scored on the same images.

    Raises:
        UsageError: There is no data set and int8 needs one, or it cannot be used.
    """
    data_sets = {path: _load(path, works, on_warning) for path in _paths(works)}
    calibrating: dict[_Draw, CalibrationSet] = {}
    for draw in dict.fromkeys(_Draw.of(work.order) for work in works if work.calibrates):
        data_set = data_sets[draw.path]
        assert data_set is not None
        calibrating[draw] = calibration.choose(data_set, draw.n, draw.seed)
    for note in dict.fromkeys(chosen.note for chosen in calibrating.values()):
        if note is not None:
            on_warning(note)
    scorers: dict[str | None, Scorer] = {}
    for path, data_set in data_sets.items():
        drawn = [chosen.names for draw, chosen in calibrating.items() if draw.path == path]
        if data_set is not None:
            scorers[path] = Scorer(data_set, {name for names in drawn for name in names})
    return [
        Chosen(
            calibrating[_Draw.of(work.order)] if work.calibrates else None,
            scorers.get(work.order.data),
        )
        for work in works
    ]


@dataclass(frozen=True)
class _Draw:
    """What decides which images calibrate."""

    path: str
    n: int
    seed: int

    @classmethod
    def of(cls, order: Order) -> _Draw:
        return cls(str(order.data), order.settings.calib, order.seed)


def _paths(works: Iterable[Work]) -> list[str]:
    """Return the data sets that are named, each once."""
    for work in works:
        if work.calibrates and work.order.data is None:
            raise UsageError(
                "int8 needs training images to calibrate on, and no data set is known",
                "musgd export … --int8 --data YAML",
            )
    return list(dict.fromkeys(w.order.data for w in works if w.order.data is not None))


def _load(path: str, works: Iterable[Work], on_warning: Callable[[str], None]) -> DataSet | None:
    try:
        return data.load(path)
    except UsageError as error:
        if any(w.calibrates or w.order.data_given for w in works if w.order.data == path):
            raise
        # The run was copied to a machine that does not have its data.
        on_warning(f"nothing is held against its float parent: {error.what}")
        return None
