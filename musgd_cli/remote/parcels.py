"""What goes to a board: folders of files, each named by what it holds, so that none goes twice.

They lie in ``~/.cache/musgd/remote`` there and stay for the next bench; what has not been used for
30 days is cleared::

    files/<hash>/<name>/    a model, a data set's split, the agent
    session-<random>/       links to them, laid out as a run; removed when the bench ends, or days
                            after where its line was lost, for it holds what was measured
"""

from __future__ import annotations

import hashlib
import io
import os
import secrets
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO

import yaml

from musgd_cli.bench.subject import Subject
from musgd_cli.data.dataset import DataSet, label_file
from musgd_cli.remote.ssh import Connection
from musgd_cli.runs import ARTIFACT_FILE

CACHE = ".cache/musgd/remote"
"""Below the home folder of the board."""

_SIDECAR = "metadata.yaml"
"""What Ultralytics notes beside a model in formats that keep no notes."""

_WHOLE = ".whole"
"""The last file of what is sent: tar takes a stream that was cut between two files for whole."""

_MB = 2**20

# What is kept is marked as used; leftovers of broken connections go with what nobody used. What is
# half removed must not pass for whole.
_LOOK = f"""
mkdir -p "$1/files" && cd "$1" || exit
shift
for key; do
    [ -e "files/$key/{_WHOLE}" ] && touch "files/$key" && echo "$key"
done
find files -mindepth 1 -maxdepth 1 -mtime +30 \\
    -exec rm -f {{}}/{_WHOLE} \\; -exec rm -rf {{}} \\; 2>/dev/null
find . -maxdepth 1 -name 'session-*' -mtime +1 -exec rm -rf {{}} + 2>/dev/null
:
"""

# Whole or not at all. Another bench may have brought the same meanwhile.
_UNPACK = f"""
cd "$1" || exit
part=$(mktemp -d ./part.XXXXXX) || exit
if tar -xf - -C "$part" && [ -e "$part/{_WHOLE}" ] &&
    {{ [ -e "$2/{_WHOLE}" ] || {{ rm -rf "$2" && mv "$part" "$2"; }}; }}
then
    rm -rf "$part"
else
    rm -rf "$part"
    exit 1
fi
"""


@dataclass(frozen=True)
class Parcel:
    """One folder to send."""

    name: str
    """Of the folder there."""
    contents: Mapping[str, Path | bytes]
    """What lies in it, by relative path."""

    @cached_property
    def key(self) -> str:
        """Half of the SHA-256 over all names and contents.

        Raises:
            OSError: A file cannot be read.
        """
        digest = hashlib.sha256(os.fsencode(self.name))
        for name, content in sorted(self.contents.items()):
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                contained = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(os.fsencode(f"\0{name}\0{contained}"))
        return digest.hexdigest()[:32]

    @cached_property
    def size(self) -> int:
        """Bytes."""
        return sum(
            len(content) if isinstance(content, bytes) else content.stat().st_size
            for content in self.contents.values()
        )

    def write(self, stream: IO[bytes]) -> None:
        """Write it as a tar file."""
        with tarfile.open(fileobj=stream, mode="w|") as tar:
            for name, content in self.contents.items():
                _add(tar, f"{self.name}/{name}", content)
            _add(tar, _WHOLE, b"")


def of_model(subject: Subject) -> Parcel:
    """Pack a model's files and what describes them."""
    names = [*subject.artifact.files, ARTIFACT_FILE if subject.made_by is None else _SIDECAR]
    folder = subject.folder
    return Parcel(
        folder.resolve().name,
        {name: folder / name for name in names if (folder / name).is_file()},
    )


def of_split(data_set: DataSet) -> Parcel:
    """Pack the split that is scored, its labels, and a description that knows of no other one.

    The images keep their path below the set's folder, by which records name them.
    """
    contents: dict[str, Path | bytes] = {}
    names = []
    for i, image in enumerate(data_set.images(data_set.score_split)):
        inside = image.is_relative_to(data_set.root)
        name = data_set.name_of(image) if inside else f"elsewhere/{i:06}-{image.name}"
        names.append(name)
        contents[name] = image
        labels = label_file(image)
        if labels.is_file():
            contents[str(label_file(Path("/", name)).relative_to("/"))] = labels
    split = data_set.score_split
    listing = f"{split}.txt"
    contents[listing] = os.fsencode("".join(f"./{name}\n" for name in names))
    # A set has a train and a val split; nothing here is trained.
    description = dict.fromkeys(("train", "val", split), listing)
    contents[data_set.path.name] = yaml.safe_dump(
        {**description, "names": dict(enumerate(data_set.names))}, allow_unicode=True
    ).encode()
    folder = data_set.path.parent.name
    # One called images would, by the rule for labels, have them beside itself.
    return Parcel("data" if folder in ("", "images") else folder, contents)


@dataclass
class Shelf:
    """What one board has of us.

    Args:
        connection: To the board.
    """

    connection: Connection
    _there: set[str] = field(default_factory=set)

    @property
    def folder(self) -> str:
        """Where all of it lies there, an absolute path."""
        return f"{self.connection.home}/{CACHE}"

    def lacking(self, parcels: Iterable[Parcel]) -> list[Parcel]:
        """Return those that are not there yet, each once.

        Raises:
            MusgdError: The board's disk cannot be written, or the connection broke.
        """
        wanted = {parcel.key: parcel for parcel in parcels}
        found = self.connection.run(["sh", "-c", _LOOK, "musgd", self.folder, *wanted])
        there = set(found.out.split())
        return [parcel for key, parcel in wanted.items() if key not in there]

    def send(self, parcel: Parcel) -> None:
        """Copy one.

        Raises:
            MusgdError: The board's disk cannot be written, or the connection broke.
            OSError: A file of it cannot be read here.
        """
        self.connection.send(_UNPACK, f"{self.folder}/files", parcel.key, write=parcel.write)

    def place(self, parcel: Parcel) -> str:
        """Return where a parcel's folder lies there, an absolute path."""
        return f"{self.folder}/files/{parcel.key}/{parcel.name}"

    def lay_out(self, links: Mapping[str, str], files: Mapping[str, bytes]) -> str:
        """Make a folder for one bench, and return its absolute path.

        Args:
            links: Relative path to what it leads to.
            files: Relative path to contents.
        """
        name = f"session-{secrets.token_hex(8)}"

        def write(stream: IO[bytes]) -> None:
            with tarfile.open(fileobj=stream, mode="w|") as tar:
                for path, target in links.items():
                    link = tarfile.TarInfo(path)
                    link.type, link.linkname = tarfile.SYMTYPE, target
                    tar.addfile(link)
                for path, content in files.items():
                    _add(tar, path, content)
                _add(tar, _WHOLE, b"")

        self.connection.send(_UNPACK, self.folder, name, write=write)
        return f"{self.folder}/{name}"


def in_words(parcels: Iterable[Parcel]) -> str:
    """Say how much parcels weigh: ``2.4 MB``."""
    return f"{max(0.1, sum(parcel.size for parcel in parcels) / _MB):.1f} MB"


def _add(tar: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    info = tarfile.TarInfo(str(PurePosixPath(name)))
    info.mode = 0o644
    if isinstance(content, bytes):
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
        return
    with content.open("rb") as file:
        info.size = content.stat().st_size
        tar.addfile(info, file)
