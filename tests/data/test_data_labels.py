from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.data.labels import parse, read

shares = st.floats(0.0, 1.0, width=32)
sizes = st.floats(np.float32(1e-6).item(), 1.0, width=32)
rows = st.tuples(st.integers(0, 79), shares, shares, sizes, sizes)


@given(st.lists(rows, unique=True))
def test_boxes_come_back_as_written(written: list[tuple[float, ...]]) -> None:
    text = "".join(" ".join(map(repr, row)) + "\n" for row in written)
    labels = parse(text, n_classes=80)
    np.testing.assert_array_equal(labels.boxes, np.array(written, np.float32).reshape(-1, 5))
    assert not [fault for fault in labels.faults if fault.is_error]


@given(st.integers(0, 2), st.lists(st.tuples(shares, shares), min_size=3, max_size=20))
def test_a_polygon_becomes_the_box_around_it(
    class_id: int, points: list[tuple[float, float]]
) -> None:
    labels = parse(f"{class_id} " + " ".join(f"{x!r} {y!r}" for x, y in points), n_classes=3)
    low, high = np.float32(points).min(axis=0), np.float32(points).max(axis=0)
    if (low == high).any():
        assert [fault.kind for fault in labels.faults] == ["box-without-area"]
        return
    [box] = labels.boxes
    assert box[0] == class_id
    np.testing.assert_allclose(box[1:3] - box[3:] / 2, low, atol=1e-6)
    np.testing.assert_allclose(box[1:3] + box[3:] / 2, high, atol=1e-6)


@given(st.text())
def test_no_text_is_too_wild(text: str) -> None:
    labels = parse(text, n_classes=2)
    assert labels.boxes.shape[1] == 5
    assert np.isfinite(labels.boxes).all()


@pytest.mark.parametrize(
    ("row", "kind", "is_error"),
    [
        ("0 .5 .5 .1", "label-malformed", True),
        ("0 .5 .5 .1 .1 .9", "label-malformed", True),
        ("0 .1 .1 .2 .1 .2 .2 .3", "label-malformed", True),
        ("cat .5 .5 .1 .1", "label-malformed", True),
        ("0,.5,.5,.1,.1", "label-malformed", True),
        ("0 nan .5 .1 .1", "label-malformed", True),
        ("0 .5 .5 inf .1", "label-malformed", True),
        ("0.5 .5 .5 .1 .1", "label-malformed", True),
        ("-1 .5 .5 .1 .1", "class-out-of-range", True),
        ("2 .5 .5 .1 .1", "class-out-of-range", True),
        ("0 1.02 .5 .1 .1", "coordinate-out-of-range", True),
        ("0 320 240 64 48", "coordinate-out-of-range", True),
        ("0 .5 .5 -.1 .1", "coordinate-out-of-range", True),
        ("0 .5 .5 0 .1", "box-without-area", True),
        ("0 .1 .1 .2 .2 .3 .3 .1 .1", None, False),
        ("0 1.005 .5 .01 .01", None, False),
        ("0 .05 .5 .2 .1", "box-beyond-image", False),
    ],
)
def test_each_fault_has_its_name_and_line(row: str, kind: str | None, is_error: bool) -> None:
    polygon = len(row.split()) > 6
    sound = "1 .2 .2 .4 .2 .4 .4" if polygon else "1 .5 .5 .2 .2"
    labels = parse(f"{sound}\n\n{row}\n", n_classes=2)
    assert [(f.line, f.kind, f.is_error) for f in labels.faults] == (
        [(3, kind, is_error)] if kind else []
    )
    assert len(labels.boxes) == (1 if is_error else 2)


def test_all_faults_of_a_file_are_named_at_once() -> None:
    labels = parse("0 .5 .5 .1\n1 .5 .5 .1 .1\n9 .5 .5 .1 .1\n1 .5 .5 .1 .1\n", n_classes=2)
    assert [(fault.line, fault.kind) for fault in labels.faults] == [
        (1, "label-malformed"),
        (3, "class-out-of-range"),
        (4, "row-repeated"),
    ]
    assert len(labels.boxes) == 1


def test_boxes_and_polygons_do_not_mix() -> None:
    labels = parse("0 .5 .5 .1 .1\n0 .2 .2 .4 .2 .4 .4\n0 .3 .3 .1 .1\n", n_classes=1)
    assert [(fault.line, fault.is_error) for fault in labels.faults] == [(2, True)]


def test_a_byte_order_mark_is_no_part_of_the_class(tmp_path: Path) -> None:
    file = tmp_path / "0.txt"
    file.write_bytes(b"\xef\xbb\xbf0 .5 .5 .1 .1\r\n")
    assert len(read(file, n_classes=1).boxes) == 1


def test_a_file_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "0.txt"
    file.write_bytes(b"\x80\x04\x95")
    [fault] = read(file, n_classes=1).faults
    assert (fault.kind, fault.is_error, fault.line) == ("label-unreadable", True, None)
