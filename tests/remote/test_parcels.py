"""What is sent to a board is what is scored here, under the same names."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
import pytest
import tiny_artifact as tiny

from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import MusgdError
from musgd_cli.remote.layout import Layout
from musgd_cli.remote.parcels import Parcel, Shelf, of_model, of_split
from musgd_cli.remote.ssh import Connection, Finished


def unpack(parcel: Parcel, folder: Path) -> Path:
    stream = io.BytesIO()
    parcel.write(stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        tar.extractall(folder, filter="data")
    return folder / parcel.name


def arranged(folder: Path, how: str) -> Path:
    """A data set whose images lie in one of the ways that are met, and its description."""
    yaml = tiny.make_data(folder / "set", n_images=3, splits=("train", "val", "test"))
    if how == "labels beside":
        for label in folder.glob("set/labels/*/*.txt"):
            (folder / "set/all" / label.parent.name).mkdir(parents=True, exist_ok=True)
            label.rename(folder / "set/all" / label.parent.name / label.name)
        for image in folder.glob("set/images/*/*.png"):
            image.rename(folder / "set/all" / image.parent.name / image.name)
        yaml.write_text(yaml.read_text().replace("images/", "all/"))
    elif how == "description beside":
        yaml = yaml.rename(folder / "beside.yaml")
        yaml.write_text(f"path: set\n{yaml.read_text()}")
    elif how == "below images":
        yaml = yaml.rename(folder / "set/images/data.yaml")
        yaml.write_text(yaml.read_text().replace("images/", ""))
    elif how == "listed from elsewhere":
        (folder / "own").mkdir()
        yaml = yaml.rename(folder / "own/data.yaml")
        for split in ("train", "val", "test"):
            images = sorted((folder / "set/images" / split).iterdir())
            (folder / "own" / f"{split}.txt").write_text("\n".join(map(str, images)))
        yaml.write_text(yaml.read_text().replace("images/", "").replace("\nnames", "\nnames"))
        yaml.write_text("\n".join(f"{s}: {s}.txt" for s in ("train", "val", "test")))
        with yaml.open("a") as file:
            file.write(f"\nnames: [{', '.join(tiny.NAMES)}]\n")
    return yaml


def contents(data_set: DataSet) -> list[tuple[bytes, list[list[float]]]]:
    images = data_set.images(data_set.score_split)
    return [(image.read_bytes(), data_set.labels(image).tolist()) for image in images]


@pytest.mark.parametrize(
    "how",
    ["as usual", "labels beside", "description beside", "below images", "listed from elsewhere"],
)
def test_a_split_is_read_there_as_here(how: str, tmp_path: Path) -> None:
    here = load(arranged(tmp_path / "here", how))
    assert all(np.any(here.labels(image)) for image in here.images("test"))
    there = load(unpack(of_split(here), tmp_path / "there") / here.path.name)
    assert (there.names, there.score_split) == (here.names, here.score_split)
    assert contents(there) == contents(here)
    if how != "listed from elsewhere":  # by these names records know what calibrated a model
        names = [[s.name_of(image) for image in s.images("test")] for s in (here, there)]
        assert names[0] == names[1]
    # No other split goes along.
    assert len(list((tmp_path / "there").rglob("*.png"))) == 3


def test_a_parcel_is_named_by_all_that_it_holds(tmp_path: Path) -> None:
    def key(**contents: bytes) -> str:
        return Parcel("model", dict(contents)).key

    assert key(a=b"1", b=b"2") == key(b=b"2", a=b"1")
    assert len({key(a=b"1", b=b"2"), key(a=b"2", b=b"1"), key(a=b"12"), key(a=b"1")}) == 4


def test_of_a_model_only_its_own_files_are_sent(tmp_path: Path) -> None:
    artifact = tiny.make_null(tmp_path / "model").model_copy(update={"files": ("model.onnx",)})
    for name in ("model.onnx", "model.engine", "README.md"):
        (tmp_path / "model" / name).write_text(name)
    parcel = of_model(Subject(tmp_path / "model", artifact))
    assert set(parcel.contents) == {"model.onnx", "artifact.json"}
    parcel = of_model(Subject(tmp_path / "model", artifact, made_by="another"))
    assert set(parcel.contents) == {"model.onnx"}


def test_a_name_that_is_no_text_is_sent_too(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    parcel = Parcel(os.fsdecode(b"\xe9"), {name: b"1"})
    assert parcel.key != Parcel("e", {name: b"1"}).key
    assert (unpack(parcel, tmp_path) / name).read_bytes() == b"1"


class Here:
    """A connection to this machine, which may break in the middle of a transfer."""

    def __init__(self, home: Path) -> None:
        self.home = str(home)
        self.cut_after: int | None = None

    def run(self, command: Sequence[str]) -> Finished:
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        return Finished(done.returncode, done.stdout)

    def send(self, script: str, *arguments: str, write: Callable[[IO[bytes]], None]) -> None:
        stream = io.BytesIO()
        write(stream)
        sent = stream.getvalue()[: self.cut_after]
        done = subprocess.run(["sh", "-c", script, "musgd", *arguments], check=False, input=sent)
        if done.returncode:
            raise MusgdError("cannot write there", "")


def test_a_transfer_that_was_cut_is_not_kept(tmp_path: Path) -> None:
    parcel = Parcel("model", {"a": b"1" * 600, "b": b"2" * 600})
    here = Here(tmp_path)
    shelf = Shelf(cast("Connection", here))
    assert shelf.lacking([parcel]) == [parcel]
    here.cut_after = 3 * 512  # after a: its header and its two blocks
    with pytest.raises(MusgdError):
        shelf.send(parcel)
    with pytest.raises(MusgdError):
        shelf.lay_out({}, {"a": b"1" * 600, "b": b"2" * 600})
    remote = tmp_path / ".cache/musgd/remote"
    assert [place for place in remote.rglob("*") if place.name != "files"] == []
    # One that an earlier musgd kept is brought anew.
    half = Path(shelf.place(parcel))
    half.mkdir(parents=True)
    (half / "a").touch()
    assert shelf.lacking([parcel]) == [parcel]
    here.cut_after = None
    shelf.send(parcel)
    assert {file.name: file.read_bytes()[:1] for file in half.iterdir()} == {"a": b"1", "b": b"2"}
    assert shelf.lacking([parcel]) == []


def test_what_nobody_used_for_a_month_is_cleared(tmp_path: Path) -> None:
    used, unused = Parcel("model", {"a": b"1"}), Parcel("model", {"a": b"2"})
    shelf = Shelf(cast("Connection", Here(tmp_path)))
    for parcel in shelf.lacking([used, unused]):
        shelf.send(parcel)
    month_ago = time.time() - 32 * 86400
    for parcel in (used, unused):
        os.utime(Path(shelf.place(parcel)).parent, (month_ago, month_ago))
    assert shelf.lacking([used]) == []
    files = tmp_path / ".cache/musgd/remote/files"
    assert [place.name for place in files.iterdir()] == [used.key]
    assert shelf.lacking([used, unused]) == [unused]


def test_runs_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    subjects = []
    for run in ("1/r", "2/r-3", "3/r", "4/r"):
        folder = tmp_path / run / "artifacts/x86-cpu-null-fp32-64"
        subjects.append(Subject(folder, tiny.make_null(folder)))
    layout = Layout(subjects, None, lambda _: True)
    assert list(layout.subjects.values()) == subjects
