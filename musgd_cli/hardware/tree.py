"""Reading ``/proc``, ``/sys`` and ``/etc``: of this machine, or of another's recorded copy."""

from __future__ import annotations

import fnmatch
import os
import re
from pathlib import Path

DEVICE_TREES = (
    "proc/device-tree",
    "sys/firmware/devicetree/base",
    # Docker masks /sys/firmware; bound to this place it can be read (node-rpio#154).
    "host/firmware/devicetree/base",
)

_MOST_LINKS = 40
"""Links followed before a path counts as a loop: the kernel's own limit (path_resolution(7))."""

_ANSWER_S = 2.0
"""A program that takes longer hangs."""


class Tree:
    """A machine's file tree below a root.

    Every reader answers ``None`` or nothing for what is absent or may not be read: on a board half
    of the files are missing, and which half is what tells boards apart.

    Args:
        root: ``/`` reads this machine; any other folder a recorded one. Links in a recorded tree
            are followed as if ``root`` were ``/``, so none leads out to this machine.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.live = root == Path("/")

    def locate(self, path: str) -> Path:
        """Return where ``path``, given from the root without a leading slash, really lies."""
        if self.live:
            return self.root / path
        place, links = self.root, 0
        ahead = list(reversed(Path(path).parts))
        while ahead:
            part = ahead.pop()
            if part == "/":
                place = self.root
            elif part == "..":
                place = place.parent if place != self.root else place
            elif (step := place / part).is_symlink() and links < _MOST_LINKS:
                links += 1
                ahead.extend(reversed(step.readlink().parts))
            else:
                place = step
        return place

    def data(self, path: str, size: int = -1) -> bytes | None:
        """Return the first ``size`` bytes of a file, or all of it."""
        try:
            with self.locate(path).open("rb") as stream:
                return stream.read(size)
        except OSError:
            return None

    def link(self, path: str) -> str | None:
        """Return where a link points, as it is written."""
        folder, _, name = path.rpartition("/")
        try:
            return str((self.locate(folder) / name).readlink())
        except OSError:
            return None

    def text(self, path: str) -> str | None:
        """Return a file as text, without the NULs and blanks at its ends."""
        data = self.data(path)
        return None if data is None else data.decode(errors="replace").strip("\0 \t\n")

    def strings(self, path: str) -> tuple[str, ...]:
        """Return the NUL-separated strings of a device-tree property."""
        return tuple(filter(None, (self.text(path) or "").split("\0")))

    def integer(self, path: str, base: int = 10) -> int | None:
        """Return the one number that a file holds."""
        try:
            return int(self.text(path) or "", base)
        except ValueError:
            return None

    def device_tree(self, name: str) -> tuple[str, ...]:
        """Return the strings of a property of the device tree's root."""
        found = (self.strings(f"{folder}/{name}") for folder in DEVICE_TREES)
        return next(filter(None, found), ())

    def answer(self, *command: str) -> str | None:
        """Return what a program prints; ``None`` without it, or when it fails.

        A recorded tree holds such answers in files: ``answers/`` and the command line.
        """
        if not self.live:
            return self.text(f"answers/{' '.join(command)}")
        import subprocess  # not where the engines count their cores

        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
                timeout=_ANSWER_S,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout

    def exists(self, path: str) -> bool:
        """Tell whether there is a file or folder."""
        try:
            return self.locate(path).exists()
        except OSError:
            return False

    def children(self, folder: str, pattern: str = "*") -> list[str]:
        """Return the paths of a folder's entries that match, numbers in them sorted as such."""
        try:
            # Path.glob takes three times as long, and this is called while frames are timed.
            with os.scandir(self.locate(folder)) as entries:
                names = fnmatch.filter([entry.name for entry in entries], pattern)
        except OSError:
            return []
        return [f"{folder}/{name}" for name in sorted(names, key=_by_number)]


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]
