"""Names that nothing has yet, also where another process looks for one at the same time."""

from __future__ import annotations

import os
from pathlib import Path


def free_path(folder: Path, stem: str, *suffixes: str) -> Path:
    """Return ``folder/stem``, or the first of ``stem-2``, …, that exists with no suffix.

    Returns:
        The path with the first suffix.
    """
    name, number = stem, 1
    while any(os.path.lexists(folder / (name + suffix)) for suffix in suffixes):
        number += 1
        name = f"{stem}-{number}"
    return folder / (name + suffixes[0])


def new_folder(folder: Path) -> Path:
    """Make ``folder``, or the first of ``folder-2``, …, that is free, and return it.

    Raises:
        OSError: It cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    while True:
        free = free_path(folder.parent, folder.name, "")
        try:
            free.mkdir()
        except FileExistsError:  # another process was faster
            continue
        return free


def new_file(folder: Path, stem: str, *suffixes: str) -> Path:
    """Make an empty file under a free name, as `free_path` has it, and return its path.

    Raises:
        OSError: It cannot be made.
    """
    while True:
        free = free_path(folder, stem, *suffixes)
        try:
            free.touch(exist_ok=False)
        except FileExistsError:
            continue
        return free
