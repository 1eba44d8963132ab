"""Paths that a record or a model from elsewhere names: they may lead nowhere but into its folder.

Whoever writes such a file chooses what we open, and in a bundle what we write.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath


def stays_inside(name: str) -> bool:
    """Tell whether a relative path, wherever it is read, leads to a file below its start.

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
