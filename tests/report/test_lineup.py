"""Reports side by side: names that tell them apart, machines, parents and what no other beats."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invented_reports import ESTIMATED, METERED, NANO, PI, null, parent, report

from musgd_cli.report.lineup import Lineup, pareto_front
from musgd_cli.report.trade_off import energy_points, fronts, latency_points

FEW = st.sampled_from([0.5, 1.0, 1.5, 2.0, 3.0])
POINTS = st.lists(st.tuples(FEW, FEW), min_size=1, max_size=12)


def names(*reports):
    return [entry.name for entry in Lineup(reports).entries]


def beats(one, other):
    return one != other and one[0] <= other[0] and one[1] >= other[1]


@given(POINTS)
def test_the_front_is_what_no_other_point_beats(points):
    front = set(pareto_front(points))
    for index, point in enumerate(points):
        assert (index in front) == (not any(beats(other, point) for other in points))


@given(POINTS)
def test_the_front_rises(points):
    front = [points[index] for index in pareto_front(points)]
    assert front == sorted(front)
    assert [worth for _, worth in front] == sorted(worth for _, worth in front)


def test_a_name_says_what_differs_and_no_more():
    assert names(parent(), report()) == ["ONNX Runtime fp32", "ncnn fp16"]
    assert names(report(threads=1), report(threads=4)) == [
        "ncnn fp16, 1 thread",
        "ncnn fp16, 4 threads",
    ]
    assert names(report(imgsz=320), report(imgsz=640, host=NANO)) == [
        "ncnn fp16, 320 px, pi4b",
        "ncnn fp16, 640 px, jetson-nano",
    ]


def test_twins_are_told_apart():
    assert names(report(), report(artifact="elsewhere/b")) == [
        "ncnn fp16 (pi4b-ncnn-fp16-320)",
        "ncnn fp16 (b)",
    ]
    other_run = report(artifact="runs/barn/artifacts/pi4b-ncnn-fp16-320")
    assert names(report(), other_run) == ["ncnn fp16 (cells)", "ncnn fp16 (barn)"]
    assert names(report(), report(sustained=True)) == ["ncnn fp16", "ncnn fp16 (sustained)"]
    later = report(started="2026-11-25T08:00:00+00:00")
    assert names(report(), later)[1] == "ncnn fp16 (2026-11-25 08:00:00)"
    assert names(report(), report()) == ["ncnn fp16 (no. 1)", "ncnn fp16 (no. 2)"]


@given(st.lists(st.sampled_from([report(), parent(), report(sustained=True), null()]), min_size=1))
def test_no_two_have_one_name(reports):
    assert len(set(names(*reports))) == len(reports)


def test_machines_stand_in_the_order_they_come_and_twins_are_numbered():
    second = PI.model_copy(update={"ram_mb": 7811})
    lineup = Lineup([report(host=NANO), report(), report(host=second), report()])
    assert list(lineup.machines) == ["jetson-nano", "pi4b", "pi4b (2)"]
    assert [entry.machine for entry in lineup.entries] == [
        "jetson-nano",
        "pi4b",
        "pi4b (2)",
        "pi4b",
    ]


def test_boards_of_one_kind_are_told_apart_by_what_they_are_called_over_ssh():
    barn, yard = report(reached_as="pi@barn"), report(reached_as="pi@yard")
    lineup = Lineup([barn, yard, barn, report(host=NANO, reached_as="nano")])
    assert list(lineup.machines) == ["pi4b (pi@barn)", "pi4b (pi@yard)", "jetson-nano"]
    assert [entry.machine for entry in lineup.entries[:3]] == [
        "pi4b (pi@barn)",
        "pi4b (pi@yard)",
        "pi4b (pi@barn)",
    ]
    # One that was also measured on the spot is no other machine.
    assert list(Lineup([barn, report()]).machines) == ["pi4b"]


@pytest.mark.parametrize(
    ("update", "n"),
    [
        ({"runtimes": {"ncnn": "1.0.20270101"}, "python": "3.13.5"}, 1),
        ({"os": "Debian GNU/Linux 13 (trixie)", "kernel": "6.12.47+rpt-rpi-v8"}, 1),
        ({"ram_mb": 3729}, 1),  # more of it given to the GPU
        ({"ram_mb": 1849}, 2),
        ({"cpu": "Cortex-A76"}, 2),
        ({"container": "docker"}, 2),
        ({"ram_mb": None}, 2),
    ],
)
def test_what_an_update_changes_makes_no_other_machine(update, n):
    assert len(Lineup([report(), report(host=PI.model_copy(update=update))]).machines) == n


def test_each_system_that_a_machine_had_is_told():
    updated = PI.model_copy(update={"os": "Debian 13"})
    lineup = Lineup([report(), report(host=updated), report(host=updated)])
    about = lineup.about_machine("pi4b")
    assert "Debian GNU/Linux 12 (bookworm); Cortex-A72, 4 cores, Debian 13" in about
    assert about.count("Cortex-A72") == 2


def test_speed_is_held_against_the_float_parent_of_the_same_machine_and_threads():
    lineup = Lineup([parent(140), report(70), report(70, host=NANO), report(70, threads=1), null()])
    assert [lineup.speed_up(entry) for entry in lineup.entries] == [None, 2.0, None, None, None]


def test_of_parents_that_are_one_file_the_targets_own_counts():
    other = parent(280, target="x86-cpu")
    for reports in ([parent(140), other, report(70)], [other, parent(140), report(70)]):
        lineup = Lineup(reports)
        assert lineup.speed_up(lineup.entries[-1]) == 2.0


def test_scores_on_different_images_are_kept_apart():
    grounds = Lineup(
        [report(), report(n_images=60, n_excluded=12), parent(), report(data=None)]
    ).grounds
    assert [len(entries) for entries in grounds.values()] == [2, 1]
    assert [str(ground) for ground in grounds] == [
        "bccd.yaml, test (72 images)",
        "bccd.yaml, test (60 images, 12 left out)",
    ]


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        # Roboflow names every set so.
        (
            {"data": "/d/bccd/data.yaml"},
            {"data": "/d/fish/data.yaml"},
            ["bccd/data.yaml", "fish/data.yaml"],
        ),
        (
            {"data": "/d/bccd/data.yaml"},
            {"data": "/d/fish/data.yaml", "host": NANO},
            ["bccd/data.yaml", "fish/data.yaml"],
        ),
        ({"data": "/w/here/../d/c.yaml"}, {"data": "/w/d/c.yaml"}, ["c.yaml"]),
        # A copy on one machine may have been changed; on another it is the way there.
        ({"data": "/a/b/c.yaml"}, {"data": "/x/b/c.yaml"}, ["/a/b/c.yaml", "/x/b/c.yaml"]),
        ({"data": "/a/b/c.yaml"}, {"data": "/x/b/c.yaml", "host": NANO}, ["c.yaml"]),
        ({"data": "/a/b/c.yaml"}, {"data": "/a/e/c.yaml", "host": NANO}, ["b/c.yaml", "e/c.yaml"]),
        # As many images, but not those.
        (
            {"data": "/a/b/c.yaml", "n_small": 7},
            {"data": "/a/b/c.yaml", "n_small": 8},
            ["b/c.yaml, objects 7/612/403", "b/c.yaml, objects 8/612/403"],
        ),
    ],
)
def test_accuracies_are_held_against_each_other_on_the_same_images_alone(one, other, told):
    lineup = Lineup([report(**one), parent(**other)])
    assert [ground.name for ground in lineup.grounds] == told
    assert len(list(lineup.incomparable())) == (len(told) > 1)


def test_a_set_that_one_machine_has_twice_is_no_other_machines():
    two = [report(data="/a/b/c.yaml"), report(data="/x/b/c.yaml")]
    assert len(Lineup([*two, report(data="/y/b/c.yaml", host=NANO)]).grounds) == 3
    assert len(Lineup([*two, report(data="/x/b/c.yaml", host=NANO)]).grounds) == 2


# ------------------------------------------------------------------------------------- trade-offs


def test_each_machine_has_a_front_of_its_own():
    lineup = Lineup([report(18, host=NANO), report(70), parent(140, map50_95=0.6)])
    found = fronts(latency_points(lineup.entries))
    assert {name: [p.cost for p in front] for name, front in found.items()} == {
        "jetson-nano": [18],
        "pi4b": [70, 140],
    }


def test_an_estimate_is_never_on_a_front():
    cheap = report(**{**ESTIMATED, "energy_per_frame_j": 0.01})
    lineup = Lineup([cheap, parent(**METERED)])
    points = energy_points(lineup.entries)
    assert [point.estimated for point in points] == [True, False]
    (front,) = fronts(points).values()
    assert [point.entry.report.runtime for point in front] == ["onnxruntime"]


def test_energies_of_different_scopes_share_no_front():
    lineup = Lineup([parent(**METERED), report(**{**METERED, "power_scope": "package"})])
    assert set(fronts(energy_points(lineup.entries))) == {"pi4b, board", "pi4b, package"}


def test_what_was_not_measured_is_no_point():
    emulated = PI.model_copy(update={"emulated": True})
    lineup = Lineup([null(), report(host=emulated, **METERED), report(data=None, map50_95=None)])
    assert latency_points(lineup.entries) == []
    assert energy_points(lineup.entries) == []
