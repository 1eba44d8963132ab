from __future__ import annotations

import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from musgd_cli.data import load
from musgd_cli.errors import ExitCode, MusgdError, UsageError

MakeSet = Callable[..., Path]


def names_of(images: tuple[Path, ...]) -> list[str]:
    return [image.name for image in images]


def digest(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_a_yaml_or_its_folder_names_the_set(make_set: MakeSet) -> None:
    file = make_set()
    data = load(file.parent)
    assert data == load(str(file))
    assert data.names == ("cat", "dog")
    assert names_of(data.images("train")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert data.score_split == "val"


def test_figures_are_measured_on_test_where_there_is_one(make_set: MakeSet) -> None:
    assert load(make_set(test="images/val")).score_split == "test"


def test_the_yaml_that_describes_a_set_is_found_among_others(make_set: MakeSet) -> None:
    file = make_set()
    (file.parent / "hyp.yaml").write_text("lr0: 0.01\n")
    assert load(file.parent).path == file


def test_several_sets_in_a_folder_are_not_guessed_between(make_set: MakeSet) -> None:
    file = make_set()
    shutil.copy(file, file.with_name("other.yaml"))
    with pytest.raises(UsageError, match=r"other\.yaml, set\.yaml"):
        load(file.parent)


def test_images_are_sorted_by_path_and_hidden_files_left_out(make_set: MakeSet) -> None:
    file = make_set()
    train = file.parent / "images/train"
    (train / "deep").mkdir()
    shutil.copy(train / "0.jpg", train / "deep/a.JPG")
    shutil.copy(train / "0.jpg", train / "._0.jpg")
    (train / "notes.md").write_text("no image")
    assert names_of(load(file).images("train")) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "a.JPG"]


def test_a_link_in_a_circle_ends(make_set: MakeSet) -> None:
    file = make_set()
    (file.parent / "images/train/again").symlink_to(file.parent / "images/train")
    assert len(load(file).images("train")) == 4


@pytest.mark.parametrize(
    ("path", "train"),
    [
        (".", "images/train"),
        ("images", "train"),
        (None, ["images/train"]),
        (None, "../images/train"),  # as labelling services export it
    ],
)
def test_splits_are_found_from_the_root(make_set: MakeSet, path: str, train: object) -> None:
    data = load(make_set(path=path, val="images/val" if path != "images" else "val", train=train))
    assert len(data.images("train")) == 4


def test_a_root_is_looked_for_beside_the_yaml_and_then_here(
    make_set: MakeSet, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = make_set(path="elsewhere")
    work = tmp_path / "work"
    work.mkdir()
    shutil.move(file.parent / "images", work / "elsewhere/images")
    monkeypatch.chdir(work)
    assert load(file).root == work / "elsewhere"


def test_a_list_names_images_by_ultralytics_rule(make_set: MakeSet) -> None:
    file = make_set(train="lists/train.txt")
    lists = file.parent / "lists"
    lists.mkdir()
    (lists / "near.jpg").write_bytes((file.parent / "images/train/0.jpg").read_bytes())
    absolute = file.parent / "images/train/2.jpg"
    (lists / "train.txt").write_text(f"./near.jpg\n\nimages/train/1.jpg\n{absolute}\nnotes.md\n")
    data = load(file)
    assert names_of(data.images("train")) == ["1.jpg", "2.jpg", "near.jpg"]
    assert all(image.is_file() for image in data.images("train"))


@pytest.mark.parametrize("names", [["cat", "dog"], {"1": "dog", 0: "cat"}])
def test_names_are_a_list_or_numbered(make_set: MakeSet, names: object) -> None:
    assert load(make_set(names=names, nc=2)).names == ("cat", "dog")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"names": None}, "names no classes"),
        ({"names": []}, "names no classes"),
        ({"names": {1: "a", 2: "b"}}, "class ids 1, 2"),
        ({"names": [["a"], "b"]}, "no name"),
        ({"nc": 3}, "nc: is 3"),
        ({"train": None}, "no train: split"),
        ({"val": None}, "no val: split"),
        ({"train": "images/nowhere"}, "images/nowhere does not exist"),
        ({"train": {"a": 1}}, "neither a path nor a list"),
        ({"test": "images/nowhere"}, "images/nowhere does not exist"),
        ({"path": "/nowhere"}, "/nowhere does not exist"),
        ({"kpt_shape": [17, 3]}, "keypoints"),
    ],
)
def test_a_faulty_description_is_refused_with_the_value(
    make_set: MakeSet, changes: dict[str, object], named: str
) -> None:
    with pytest.raises(UsageError, match=named) as caught:
        load(make_set(**changes))
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.mend


@pytest.mark.parametrize("content", ["", "- a\n- b\n", "train: [\n", "\x00", "a: &a [*a]\n"])
def test_a_file_that_is_no_description_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "set.yaml"
    file.write_text(content)
    with pytest.raises(UsageError):
        load(file)


def test_missing_places_are_refused(tmp_path: Path, make_set: MakeSet) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        load(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="no data set YAML"):
        load(tmp_path)
    with pytest.raises(UsageError, match="/dev/null is not a data set"):
        load("/dev/null")
    with pytest.raises(UsageError, match="is not a data set"):
        load(make_set().parent / "images/train/0.jpg")


def test_an_empty_split_is_refused(make_set: MakeSet) -> None:
    file = make_set()
    shutil.rmtree(file.parent / "images/val")
    (file.parent / "images/val").mkdir()
    with pytest.raises(UsageError, match="val: no image"):
        load(file)


def test_an_unknown_split_is_refused(make_set: MakeSet) -> None:
    with pytest.raises(UsageError, match="no split 'test'"):
        load(make_set()).images("test")


# ------------------------------------------------------------------------------------- trust


def test_a_download_is_never_run(make_set: MakeSet, tmp_path: Path) -> None:
    for number, script in enumerate(
        [f"open({str(tmp_path / 'ran')!r}, 'w')", f"bash {tmp_path / 'get.sh'}"]
    ):
        (tmp_path / "get.sh").write_text(f"touch {tmp_path / 'ran'}\n")
        file = make_set(f"set{number}", val="images/missing", download=script)
        with pytest.raises(UsageError, match="download: is never run"):
            load(file)
    assert not (tmp_path / "ran").exists()


def test_a_yaml_cannot_call_python(make_set: MakeSet, tmp_path: Path) -> None:
    file = make_set()
    command = f"touch {tmp_path / 'ran'}"
    with file.open("a") as stream:
        stream.write(f"author: !!python/object/apply:os.system ['{command}']\n")
    with pytest.raises(UsageError, match=r"set\.yaml:\d+: not plain YAML"):
        load(file)
    assert not (tmp_path / "ran").exists()


class Exploit:
    def __init__(self, touches: Path) -> None:
        self.touches = touches

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.touches}",)


def test_pickles_beside_the_data_are_not_loaded(make_set: MakeSet, tmp_path: Path) -> None:
    file = make_set()
    poison = pickle.dumps(Exploit(tmp_path / "ran"))
    pickle.loads(poison)
    assert (tmp_path / "ran").exists()  # the exploit works
    (tmp_path / "ran").unlink()
    for place in ("labels/train.cache", "labels.cache", "images/train/0.npy", "labels/train/0.npy"):
        (file.parent / place).write_bytes(poison)
    data = load(file)
    for image in data.images("train"):
        data.labels(image)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_written_beside_the_data(make_set: MakeSet) -> None:
    file = make_set()
    before = digest(file.parent)
    data = load(file)
    for image in data.images("train"):
        data.labels(image)
    assert digest(file.parent) == before


# ------------------------------------------------------------------------------------ labels


def test_labels_lie_where_the_last_images_folder_says(make_set: MakeSet) -> None:
    file = make_set("images/set")  # an earlier folder named images is left alone
    data = load(file)
    boxes = data.labels(data.images("train")[1])
    assert boxes.dtype == np.float32
    np.testing.assert_array_equal(boxes, np.float32([[1, 0.5, 0.5, 0.25, 0.25]]))


def test_labels_are_found_on_either_side_of_a_link(make_set: MakeSet, tmp_path: Path) -> None:
    store = make_set("store").parent
    linked = make_set("linked")
    shutil.rmtree(linked.parent / "images")
    (linked.parent / "images").symlink_to(store / "images")
    (linked.parent / "labels/train/0.txt").write_text("1 0.5 0.5 0.5 0.5\n")
    data = load(linked)
    assert data.labels(data.images("train")[0])[0, 3] == 0.5  # beside the link first
    shutil.rmtree(linked.parent / "labels")
    assert data.labels(data.images("train")[0])[0, 3] == 0.25


def test_an_image_without_labels_is_background(make_set: MakeSet) -> None:
    file = make_set()
    data = load(file)
    (file.parent / "labels/train/0.txt").unlink()
    (file.parent / "labels/train/1.txt").write_text("\n")
    for image in data.images("train")[:2]:
        assert data.labels(image).shape == (0, 5)


def test_a_row_in_error_is_named(make_set: MakeSet) -> None:
    file = make_set()
    (file.parent / "labels/train/0.txt").write_text("0 .5 .5 .1 .1\n2 .5 .5 .1 .1\n")
    data = load(file)
    with pytest.raises(MusgdError, match=r"0\.txt:2: class 2 is not in 0 to 1"):
        data.labels(data.images("train")[0])
