"""Detection data sets: load one, check one, read its images, and draw the built-in one.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.data.dataset import DataSet
    from musgd_cli.records import DataReport


def load(path: str | Path) -> DataSet:
    """Load a data set's description and list its images. See `musgd_cli.data.dataset.load`."""
    from musgd_cli.data import dataset

    return dataset.load(path)


def check(path: str | Path) -> DataReport:
    """Look over a whole data set, naming all faults. See `musgd_cli.data.checks.check`."""
    from musgd_cli.data import checks

    return checks.check(path)


def require_sound(report: DataReport) -> None:
    """Refuse a data set that has errors. See `musgd_cli.data.checks.require_sound`."""
    from musgd_cli.data import checks

    checks.require_sound(report)
