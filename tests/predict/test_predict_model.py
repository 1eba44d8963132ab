"""An artifact's record read without pydantic says what the record itself says."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import tiny_artifact as tiny

from musgd_cli.errors import UsageError
from musgd_cli.predict import model
from musgd_cli.records import SCHEMA
from musgd_cli.runs import ARTIFACT_FILE


def test_it_is_what_the_record_says(tmp_path: Path) -> None:
    artifact = tiny.make_null(tmp_path, nms_free=True, names=("a", "b"))
    read = asdict(model.read(tmp_path))
    assert read == {name: getattr(artifact, name) for name in read}


def test_constants_are_those_of_the_records() -> None:
    assert (model.RECORD, model.SCHEMA) == (ARTIFACT_FILE, SCHEMA)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"imgsz": "640"}, "imgsz is '640'"),
        ({"names": None}, "names is None"),
        ({"sha256": 1}, "sha256 is 1"),
        ({"imgsz": 0}, "imgsz is 0"),
        ({"imgsz": True}, "imgsz is True"),
        ({"imgsz": 10**9}, "imgsz is 1000000000"),
        ({"names": []}, r"names is \[\]"),
        ({"names": [1]}, r"names is \[1\]"),
        ({"files": [None]}, r"files is \[None\]"),
        ({"files": ["../../secret"]}, "files is .*secret"),
        ({"files": ["/etc/passwd"]}, "files is .*passwd"),
        ({"files": [], "runtime": "ncnn"}, "names no file"),
        ({"schema": "2.0"}, "schema 2.0, this reads 1.0"),
    ],
)
def test_what_is_no_record_is_told(change: dict[str, object], what: str, tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    file = tmp_path / ARTIFACT_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UsageError, match=what):
        model.read(tmp_path)


def test_an_array_is_no_record(tmp_path: Path) -> None:
    (tmp_path / ARTIFACT_FILE).write_text("[]")
    with pytest.raises(UsageError, match="holds no Artifact"):
        model.read(tmp_path)
