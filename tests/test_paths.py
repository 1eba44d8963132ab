"""Paths in files of others: which of them stay in the folder that they are read from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_artifact as tiny

from musgd_cli.errors import UsageError
from musgd_cli.paths import lies_inside, stays_inside
from musgd_cli.runs import ARTIFACT_FILE, read_artifact

OUTSIDE = [
    "",
    ".",
    "..",
    "../../.bashrc",
    "sub/../../x",
    "/etc/passwd",
    "..\\..\\x",
    "C:\\x",
    "C:x",
    "\\\\host\\x",
    "x\0",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_leads_out(name: str, tmp_path: Path) -> None:
    assert not stays_inside(name)
    assert not lies_inside(tmp_path, name)


@pytest.mark.parametrize("name", ["model.onnx", "sub/model.bin", "./model.onnx", "a..b", "w\\x"])
def test_what_stays(name: str, tmp_path: Path) -> None:
    assert stays_inside(name)
    assert lies_inside(tmp_path, name)


def test_links_in_a_circle_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    lies_inside(tmp_path, "a")  # either answer will do: there is no file


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_record_that_names_files_outside_is_refused(name: str, tmp_path: Path) -> None:
    tiny.make_null(tmp_path)
    file = tmp_path / ARTIFACT_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"files": [name]}))
    with pytest.raises(UsageError, match=r"files\.0: .*leads out of the folder"):
        read_artifact(tmp_path)
