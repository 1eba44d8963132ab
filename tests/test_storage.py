"""Files are whole or absent, whatever goes wrong while they are written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from musgd_cli.errors import ExitCode, MusgdError, UsageError
from musgd_cli.records import SCHEMA, Host
from musgd_cli.storage import (
    read_json,
    read_record,
    require_writable,
    sha256_of,
    whole_file,
    whole_folder,
    write_record,
    write_text,
)

UNWRITABLE = Path("/proc/musgd/file")
"""Not even root can make a folder in /proc."""


@pytest.fixture
def little_room() -> Iterator[None]:
    """A real limit: no file of this process may grow beyond 64 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -------------------------------------------------------------------------------------- files


def test_a_file_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "x.json"
    with whole_file(path) as temporary:
        temporary.write_text("half")
        assert not path.exists()
        assert temporary.parent == path.parent  # the rename stays on one file system
        temporary.write_text("whole")
    assert path.read_text() == "whole"
    assert listing(path.parent) == ["x.json"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as temporary:
        temporary.write_text("new")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["x"]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "x") as temporary:
        temporary.write_text("new")
        raise KeyboardInterrupt
    assert listing(tmp_path) == []


def test_no_room_is_told_in_words_and_leaves_the_old_file(
    tmp_path: Path, little_room: None
) -> None:
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(MusgdError, match="cannot write") as caught:
        write_text(path, "x" * (1 << 17))
    assert caught.value.exit_code == ExitCode.FAILED
    assert str(path) in caught.value.what
    assert path.read_text() == "old"
    assert listing(tmp_path) == ["x"]


@pytest.mark.parametrize(
    ("number", "mend"),
    [
        (errno.ENOSPC, "disk space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permissions"),
        (errno.EIO, "check the disk"),
    ],
)
def test_each_failure_has_its_mend(tmp_path: Path, number: int, mend: str) -> None:
    with pytest.raises(MusgdError) as caught, whole_file(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert os.strerror(number) in caught.value.what
    assert mend in caught.value.mend
    assert listing(tmp_path) == []


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_an_unwritable_folder(whole: object) -> None:
    with pytest.raises(MusgdError, match="cannot write /proc/musgd"), whole(UNWRITABLE):  # type: ignore[operator]
        pass


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_a_file_where_a_folder_is_needed(tmp_path: Path, whole: object) -> None:
    (tmp_path / "runs").write_text("a file")
    for path in (tmp_path / "runs" / "x", tmp_path / "runs" / "a" / "x"):
        with pytest.raises(MusgdError) as caught, whole(path):  # type: ignore[operator]
            pass
        assert "a file stands where a folder is needed" in caught.value.mend
    assert (tmp_path / "runs").read_text() == "a file"


def test_a_folder_where_the_file_should_go(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(MusgdError, match="cannot write"):
        write_text(tmp_path / "x", "text")
    assert listing(tmp_path) == ["x"]


@pytest.mark.parametrize("whole", [whole_file, whole_folder])
def test_an_error_about_a_file_read_meanwhile_is_not_blamed_on_ours(
    tmp_path: Path, whole: object
) -> None:
    with pytest.raises(FileNotFoundError, match="source"), whole(tmp_path / "x"):  # type: ignore[operator]
        (tmp_path / "source").read_text()
    assert listing(tmp_path) == []


def test_the_file_is_as_public_as_the_user_writes(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


# ------------------------------------------------------------------------------------ folders


def test_a_folder_appears_only_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "artifacts" / "a"
    with whole_folder(path) as temporary:
        (temporary / "model.onnx").write_bytes(b"model")
        assert not path.exists()
    assert listing(path) == ["model.onnx"]
    assert listing(path.parent) == ["a"]


def test_a_folder_takes_its_predecessors_place_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with whole_folder(path) as temporary:
        (temporary / "new").touch()
        assert listing(path) == ["old"]
    assert listing(path) == ["new"]
    assert listing(tmp_path) == ["a"]


def test_a_failure_leaves_the_old_folder(tmp_path: Path, little_room: None) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(MusgdError, match="cannot write"), whole_folder(path) as temporary:
        (temporary / "new").write_bytes(bytes(1 << 17))
    assert listing(path) == ["old"]
    assert listing(tmp_path) == ["a"]


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").touch()
    with pytest.raises(MusgdError, match="cannot write"), whole_folder(path) as temporary:
        temporary.rmdir()  # so that the last rename fails
        temporary.touch()
        temporary.unlink()
    assert listing(path) == ["old"]
    assert listing(tmp_path) == ["a"]


# ------------------------------------------------------------------------- records and hashes


def test_a_record_comes_back(tmp_path: Path) -> None:
    host = Host(board="pi4b", cpu="Cortex-A72 ½ [x]")
    write_record(tmp_path / "host.json", host)
    assert read_record(tmp_path / "host.json", Host) == host
    assert (tmp_path / "host.json").read_text(encoding="utf-8").endswith("}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"schema": "1.0", "bo', "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1, 2]", "holds no Host"),
        ("{}", "board"),
        (json.dumps({"schema": "99.0", "board": "x"}), "99.0"),
        (json.dumps({"schema": SCHEMA, "board": "x", "colour": 1}), "colour"),
    ],
)
def test_what_is_no_record_is_told_in_words(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "host.json"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_record(path, Host)
    assert said in caught.value.what
    assert str(path) in caught.value.what


def test_a_missing_file_a_folder_and_bytes_are_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_json(tmp_path / "none.json")
    with pytest.raises(UsageError, match="cannot read"):
        read_json(tmp_path)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not JSON"):
        read_json(tmp_path / "bytes")


def test_the_hash_is_of_the_contents_by_name_order(tmp_path: Path) -> None:
    (tmp_path / "b.bin").write_bytes(b"second" * (1 << 18))  # more than one block
    (tmp_path / "a.param").write_bytes(b"first")
    files = [tmp_path / "b.bin", tmp_path / "a.param"]
    expected = hashlib.sha256(b"first" + b"second" * (1 << 18)).hexdigest()
    assert sha256_of(files) == sha256_of(reversed(files)) == expected


def test_a_place_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    require_writable(tmp_path / "not" / "there" / "yet")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(MusgdError, match="cannot write"):
        require_writable(tmp_path / "file" / "artifacts")
