"""Files that are either whole or absent, and the hashes that name them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from musgd_cli.errors import ExitCode, MusgdError, UsageError

if TYPE_CHECKING:
    from musgd_cli.records import Record

R = TypeVar("R", bound="Record")

_MENDS = {
    errno.ENOSPC: "free some disk space, or choose another place",
    errno.EDQUOT: "free some of your quota, or choose another place",
    errno.EACCES: "choose a folder you may write to, or mend its permissions",
    errno.EPERM: "choose a folder you may write to, or mend its permissions",
    errno.EROFS: "choose a folder on a file system that is not read-only",
    errno.EEXIST: "a file stands where a folder is needed: choose another place",
    errno.ENOTDIR: "a file stands where a folder is needed: choose another place",
}

# mkstemp makes files private; what we write is as public as whatever the user writes.
_UMASK = os.umask(0o077)
os.umask(_UMASK)


def write_failed(path: Path, error: OSError) -> MusgdError:
    """Put an ``OSError`` met while writing ``path`` into the user's words."""
    mend = _MENDS.get(error.errno or 0, "check the disk and the folder, then run the command again")
    return MusgdError(f"cannot write {path}: {error.strerror or error}", mend, ExitCode.FAILED)


def require_writable(folder: Path) -> None:
    """Fail before minutes of work, not after them, where ``folder`` cannot be written to or made.

    Raises:
        MusgdError: It cannot. Nothing is created.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise write_failed(folder, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
    if not os.access(there, os.W_OK | os.X_OK):
        raise write_failed(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def _sync_folder(folder: Path) -> None:
    # Without this a power cut can undo the rename itself.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FAT mounts cannot flush a folder; the file itself is written.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def _raise_in_words(path: Path, temporary: Path, error: OSError) -> NoReturn:
    """Say that ``path`` could not be written, unless ``error`` is about a file read meanwhile."""
    if error.filename is not None:
        subject = Path(os.fsdecode(error.filename))
        if subject not in (path, path.parent) and not subject.is_relative_to(temporary):
            raise error
    raise write_failed(path, error) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on leaving, flush it and rename it into place.

    If the block raises, the temporary file is removed and ``path`` keeps what it held.

    Raises:
        MusgdError: The file could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise write_failed(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o666 & ~_UMASK)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        _raise_in_words(path, temporary, error)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path``; on leaving, rename it into place.

    If the block raises, the temporary folder is removed. An existing ``path`` is replaced only
    once its successor is complete, and comes back if the renaming fails.

    Raises:
        MusgdError: The folder could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise write_failed(path, error) from error
    try:
        yield temporary
        os.sync()  # of a thousand files, at once: file by file it takes seconds
        temporary.chmod(0o777 & ~_UMASK)
        _rename_over(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        _raise_in_words(path, temporary, error)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename_over(folder: Path, path: Path) -> None:
    """Rename ``folder`` to ``path``. A folder cannot be renamed over another that holds files."""
    if not path.exists():
        folder.rename(path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
    try:
        path.rename(aside / path.name)
        try:
            folder.rename(path)
        except OSError:
            (aside / path.name).rename(path)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all.

    Raises:
        MusgdError: The file could not be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_record(path: Path, record: Record) -> None:
    """Write a record as indented JSON, whole or not at all.

    Raises:
        MusgdError: The file could not be written.
    """
    write_text(path, record.model_dump_json(indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UsageError: It is missing, unreadable or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist", "check the path") from error
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from error
    except (ValueError, RecursionError) as error:  # the latter: of lists in lists in lists
        raise UsageError(
            f"{path} is not JSON: {error}", "make it again with the command that wrote it"
        ) from error


def read_record(path: Path, kind: type[R]) -> R:
    """Read a record of ``kind``, keeping fields that a newer minor version added.

    Raises:
        UsageError: The file is missing, is not JSON or is not such a record.
    """
    from pydantic import ValidationError

    data = read_json(path)
    try:
        if not isinstance(data, dict):
            raise UsageError(
                f"{path} holds no {kind.__name__}", "make it again with the command that wrote it"
            )
        return kind.parse(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the record"
        raise UsageError(
            f"{path} holds no {kind.__name__}: {where}: {first['msg']}",
            "make it again with the command that wrote it, or update musgd",
        ) from error


def digest_of(file: Path) -> str:
    """Return what names the contents of a file in a list of many: 64 bits of its SHA-256.

    Raises:
        OSError: It cannot be read.
    """
    return sha256_of([file])[:16]


def sha256_of(files: Iterable[Path]) -> str:
    """Return the SHA-256 over the contents of ``files``, sorted by name.

    Raises:
        OSError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
