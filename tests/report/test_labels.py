"""Names of points hide neither each other nor a mark nor a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.report.labels import GLYPH, place, staircase_boxes

FRAME = (0.0, 400.0, 0.0, 300.0)
SPOTS = st.lists(
    st.tuples(st.floats(0, 400, width=16), st.floats(0, 300, width=16)), min_size=1, max_size=12
)


def box_of(label, spot):
    length = len(label.text) * GLYPH
    shift = {"start": 0.0, "middle": length / 2, "end": length}[label.anchor]
    left, base = spot[0] + label.dx - shift, spot[1] + label.dy
    return left, left + length, base - 10, base + 3


def overlap(a, b):
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


@given(SPOTS)
def test_nothing_is_hidden_and_nothing_leaves_the_frame(spots):
    lines = staircase_boxes(sorted(spots, key=lambda s: (s[0], -s[1])), 400)
    labels = place([(f"model {n}", "m") for n in range(len(spots))], spots, lines, FRAME)
    boxes = [
        (n, box_of(label, spot))
        for n, (label, spot) in enumerate(zip(labels, spots, strict=True))
        if label is not None
    ]
    for n, box in boxes:
        assert box[0] >= 0 and box[1] <= 400 and box[2] >= 0 and box[3] <= 302
        assert not any(overlap(box, line) for line in lines)
        assert not any(overlap(box, other) for m, other in boxes if m != n)
        assert not any(
            overlap(box, (x - 8, x + 8, y - 8, y + 8)) for m, (x, y) in enumerate(spots) if m != n
        )


def test_a_lone_point_is_named_beside_it():
    (label,) = place([("ncnn int8",)], [(100.0, 100.0)], [], FRAME)
    assert label is not None
    assert (label.anchor, label.dx) == ("start", 11)


def test_a_shorter_name_is_taken_where_the_long_one_has_no_room():
    narrow = (0.0, 90.0, 0.0, 300.0)
    (label,) = place([("ncnn int8, 4 threads, pi4b", "ncnn int8")], [(10.0, 100.0)], [], narrow)
    assert label is not None
    assert label.text == "ncnn int8"
