"""Where things lie: a model's files within its folder, and its folder within a run."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath, PureWindowsPath

RUNS = Path("runs")
"""Where runs live, relative to the folder musgd is called in."""

PLAN_FILE = "plan.json"


def run_around(folder: Path) -> Path | None:
    """Return the folder of the run that an artifact lies in, if it lies in one.

    A folder called ``artifacts`` is not enough, for anyone may have one: it belongs to a run with a
    plan, or to one of bare weights below ``runs``.
    """
    place = Path(os.path.normpath(folder.absolute())).parent
    if place.name != "artifacts":
        return None
    # As it was given, where that names it: the path is shown, and told in reports.
    given = folder.parent.parent
    run = given if Path(os.path.normpath(given.absolute())) == place.parent else place.parent
    return run if (run / PLAN_FILE).is_file() or place.parent.parent.name == RUNS.name else None


def stays_inside(name: str) -> bool:
    """Tell whether a relative path, wherever it is read, leads to a file below its start.

    Whoever writes a record, or a model from elsewhere, chooses what we open, and in a bundle what
    we write: it may lead nowhere but into its folder.

    Args:
        name: As it was written. One that leads out on Windows is refused everywhere: a zip that is
            made here may be unpacked there.
    """
    flavours = (PurePosixPath(name), PureWindowsPath(name))
    return "\0" not in name and all(
        path.parts and not path.anchor and ".." not in path.parts for path in flavours
    )


def lies_inside(folder: Path, name: str) -> bool:
    """Tell whether ``folder / name`` is below ``folder``, links followed."""
    if not stays_inside(name):
        return False
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except RuntimeError:  # a circle, before Python 3.13
        return False
