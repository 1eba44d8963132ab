"""A data set in Ultralytics' format: a YAML that names classes and, for each split, its images.

Nothing in the YAML is executed (``download:`` is never followed), no cache or pickle beside the
data is opened, and nothing is written there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from musgd_cli.data import labels as label_files
from musgd_cli.data.images import SUFFIXES
from musgd_cli.errors import MusgdError, UsageError

SPLITS = ("train", "val", "test")

_EXAMPLE = "it needs train:, val: and names:, e.g. train: images/train"


@dataclass(frozen=True)
class DataSet:
    """A loaded data set. Images are listed, not yet opened."""

    path: Path
    """The YAML."""
    root: Path
    """The folder that the splits are relative to."""
    names: tuple[str, ...]
    """Class names by class id."""
    splits: Mapping[str, tuple[Path, ...]]
    """``train``, ``val`` and perhaps ``test``: absolute image paths in a fixed order."""

    def images(self, split: str) -> tuple[Path, ...]:
        """Return the images of ``split``, sorted by path.

        Raises:
            UsageError: The set has no such split.
        """
        try:
            return self.splits[split]
        except KeyError:
            raise UsageError(
                f"{self.path} has no split {split!r}", f"choose one of {', '.join(self.splits)}"
            ) from None

    def name_of(self, image: Path) -> str:
        """Return how records name ``image``: by its path below `root`, wherever that lies."""
        if image.is_relative_to(self.root):
            return image.relative_to(self.root).as_posix()
        return image.as_posix()

    @property
    def score_split(self) -> str:
        """The split that figures are measured on: ``test`` if there is one, else ``val``."""
        return "test" if "test" in self.splits else "val"

    def labels(self, image: Path) -> np.ndarray:
        """Return the objects in ``image``.

        Polygons become the boxes around them and repeated rows are dropped. An image whose label
        file is missing or empty shows background.

        Returns:
            ``(n, 5)`` float32: class id, centre x, centre y, width, height, the latter four as
            shares of the image's width and height.

        Raises:
            MusgdError: The label file has a row that cannot be trained or scored on.
        """
        file = label_file(image)
        labels = label_files.read(file, len(self.names))
        for fault in labels.faults:
            if fault.is_error:
                where = f"{file}:{fault.line}" if fault.line else file
                raise MusgdError(
                    f"{where}: {fault.what}", f"musgd data check {shlex.quote(str(self.path))}"
                )
        return labels.boxes


def label_file(image: Path) -> Path:
    """Return where the labels of ``image`` lie, whether or not there are any.

    By Ultralytics' rule the last ``/images/`` of the path becomes ``/labels/`` and the suffix
    ``.txt``. Where a folder on the way is a link and the labels are not beside the link, they are
    looked for beside what it points at.
    """
    beside = _by_rule(image)
    if not beside.exists():
        linked = _by_rule(image.parent.resolve() / image.name)
        if linked.exists():
            return linked
    return beside


def _by_rule(image: Path) -> Path:
    head, images, tail = str(image).rpartition(f"{os.sep}images{os.sep}")
    return Path(f"{head}{os.sep}labels{os.sep}{tail}" if images else tail).with_suffix(".txt")


def load(path: str | Path) -> DataSet:
    """Load a data set's description and list its images.

    Args:
        path: A YAML in Ultralytics' format, or a folder that holds exactly one.

    Returns:
        The set; each of its splits names at least one image.

    Raises:
        UsageError: There is no such YAML, it is not a data set's, or images it names are missing.
    """
    file = _find_yaml(Path(path).expanduser())
    description = _read_yaml(file)
    if "kpt_shape" in description:
        raise UsageError(
            f"{file} describes keypoints (kpt_shape), not boxes", "give a detection data set"
        )
    names = _class_names(description, file)
    root = _root(description, file)
    splits = {
        split: _images_of(split, entry, root, description, file)
        for split, entry in _split_entries(description, file).items()
    }
    return DataSet(path=file, root=root, names=names, splits=splits)


def _find_yaml(path: Path) -> Path:
    if path.exists() and not path.is_dir():
        if path.suffix.lower() not in (".yaml", ".yml"):
            raise UsageError(
                f"{path} is not a data set", "give a .yaml in Ultralytics' format, or its folder"
            )
        return path.absolute()
    if not path.is_dir():
        raise UsageError(f"data set {path} does not exist", "check the path")
    found = sorted(
        file for pattern in ("*.yaml", "*.yml") for file in path.glob(pattern) if file.is_file()
    )
    if len(found) > 1:
        found = [file for file in found if {"train", "names"} <= _read_yaml(file).keys()] or found
    if not found:
        raise UsageError(f"no data set YAML in {path}", f"write one there: {_EXAMPLE}")
    if len(found) > 1:
        listed = ", ".join(file.name for file in found)
        raise UsageError(f"{path} holds several data sets: {listed}", f"give one: {found[0]}")
    return found[0].absolute()


def _read_yaml(file: Path) -> Mapping[str, Any]:
    try:
        # SafeLoader builds plain values only: a `!!python/…` tag is an error, not a call.
        content = yaml.load(file.read_text(encoding="utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror or error}", "check its permissions"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8 text: {error.reason}", "save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{file}:{mark.line + 1}" if mark else str(file)
        problem = getattr(error, "problem", None) or str(error)
        raise UsageError(f"{where}: not plain YAML: {problem}", "mend that line") from error
    if not isinstance(content, Mapping):
        raise UsageError(f"{file} is not a data set's YAML", _EXAMPLE)
    return content


def _class_names(description: Mapping[str, Any], file: Path) -> tuple[str, ...]:
    names = description.get("names")
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise UsageError(f"{file} names no classes", "add names:, e.g. names: [cat, dog]")
    if any(isinstance(name, (list, dict)) or name is None for name in names.values()):
        raise UsageError(f"{file}: names: holds something that is no name", "one name a class")
    try:
        by_id = {int(class_id): str(name) for class_id, name in names.items()}
    except (TypeError, ValueError):
        by_id = {}
    if sorted(by_id) != list(range(len(names))):
        given = ", ".join(map(str, names))
        raise UsageError(
            f"{file}: class ids {given} are not 0 to {len(names) - 1}",
            "number the classes of names: from 0 without gaps",
        )
    n_classes = description.get("nc")
    if n_classes is not None and str(n_classes) != str(len(by_id)):
        raise UsageError(
            f"{file}: nc: is {n_classes}, but names: has {len(by_id)} classes",
            "make them agree, or remove nc:",
        )
    return tuple(by_id[class_id] for class_id in range(len(by_id)))


def _root(description: Mapping[str, Any], file: Path) -> Path:
    stated = description.get("path")
    if stated is None:
        return file.parent
    if not isinstance(stated, str):
        raise UsageError(f"{file}: path: {stated!r} is not a folder", "give path: as text")
    for folder in (file.parent / Path(stated).expanduser(), Path.cwd() / stated):
        if folder.is_dir():
            return _absolute(folder)
    raise UsageError(
        f"{file}: path: {stated} does not exist{_no_download(description)}",
        f"put the data set there, or change path: (relative to {file.parent})",
    )


def _absolute(path: Path) -> Path:
    # Not resolve(): labels lie beside the path as it is written, which may run through a link.
    return Path(os.path.normpath(path.absolute()))


def _no_download(description: Mapping[str, Any]) -> str:
    return "; its download: is never run" if description.get("download") else ""


def _split_entries(description: Mapping[str, Any], file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        entry = description.get(split)
        if split == "val" and entry is None:
            entry = description.get("validation")  # Ultralytics takes it for val
        if not entry:
            if split != "test":
                raise UsageError(f"{file} has no {split}: split", f"add {split}: — {_EXAMPLE}")
            continue
        entries = entry if isinstance(entry, list) else [entry]
        if not all(isinstance(item, str) for item in entries):
            raise UsageError(
                f"{file}: {split}: {entry!r} is neither a path nor a list of paths", _EXAMPLE
            )
        found[split] = entries
    return found


def _images_of(
    split: str, entries: list[str], root: Path, description: Mapping[str, Any], file: Path
) -> tuple[Path, ...]:
    images: list[Path] = []
    for entry in entries:
        place = _existing(root, entry)
        if place is None:
            raise UsageError(
                f"{file}: {split}: {entry} does not exist in {root}{_no_download(description)}",
                f"put the images there, or mend {split}: in the YAML",
            )
        found = _walk(place) if place.is_dir() else _listed(place, root)
        images += [image for image in found if image.suffix.lower() in SUFFIXES]
    if not images:
        raise UsageError(
            f"{file}: {split}: no image in {', '.join(entries)}{_no_download(description)}",
            f"put images there ({', '.join(sorted(SUFFIXES))})",
        )
    return tuple(sorted(images, key=str))


def _existing(root: Path, entry: str) -> Path | None:
    candidates = [root / entry]
    if entry.startswith("../"):
        # Exports of labelling services write ../train/images for a folder beside the YAML.
        candidates.append(root / entry.removeprefix("../"))
    for place in candidates:
        if place.exists():
            return _absolute(place)
    return None


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below ``folder``, through links, without hidden ones (``._photo.jpg``)."""
    entered: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        status = Path(place).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in entered:  # a link back up
            folders.clear()
            continue
        entered.add(identity)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _listed(listing: Path, root: Path) -> Iterator[Path]:
    """Yield the images that a ``.txt`` names, one a line, whether or not they exist."""
    try:
        lines = listing.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the image list {listing}: {error}", "give a folder or a .txt of paths"
        ) from error
    for line in filter(None, map(str.strip, lines)):
        # "./" is relative to the list by Ultralytics' rule; else the set's folder comes first.
        places = (listing.parent,) if line.startswith("./") else (root, listing.parent, Path.cwd())
        candidates = [_absolute(place / line) for place in places]
        yield next((path for path in candidates if path.exists()), candidates[0])
