"""What an experiment finds at hand, and what an experiment is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from musgd_cli.lab.claims.matrix import Matrix
from musgd_cli.lab.claims.scale import Scale
from musgd_cli.records import ClaimFinding, Host


@dataclass(frozen=True)
class Workbench:
    """What an experiment finds at hand."""

    folder: Path
    """The experiment's, absolute."""
    data: str
    """The data set's YAML, absolute."""
    scale: Scale
    matrix: Matrix
    host: Host
    machine: Path
    """``/``, or a recorded tree of another machine."""
    tell: Callable[[str], None]
    """Told of each finished step."""
    stop: Callable[[], bool]
    """Asked whether to stop."""


Experiment = Callable[[Workbench], tuple[ClaimFinding, ...]]
"""Returns one finding for the article's form and one for ours."""
