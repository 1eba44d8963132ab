"""What is measured, and what is chosen: never less than the most accurate that is fast enough."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.bench.search import NEAR, Trial, best, by_preference, step_larger, to_measure

SIZES = (160, 320, 480, 640)


def trial(imgsz: int, predicted_fps: float, *, threads: int = 1, family: str = "a") -> Trial:
    return Trial(
        family=family,
        imgsz=imgsz,
        threads=threads,
        accuracy=(imgsz,),
        predicted_fps=predicted_fps,
    )


def test_the_most_accurate_that_should_do_is_measured_and_one_step_larger() -> None:
    small, middle, large = trials = [trial(160, 200), trial(320, 60), trial(640, 10)]
    assert set(to_measure(trials, 40)) == {middle, large}
    middle.meets, large.meets = True, False
    assert to_measure(trials, 40) == []
    assert best(trials, 40) is middle
    assert step_larger(trials, middle) is large
    assert small.meets is None  # nothing hung on it


def test_one_that_fails_hands_on_to_the_next() -> None:
    small, middle, large = trials = [trial(160, 200), trial(320, 45), trial(640, 10)]
    middle.meets, large.meets = False, False
    assert to_measure(trials, 40) == [small]
    small.meets = True
    assert best(trials, 40) is small
    assert to_measure(trials, 40) == []


def test_what_would_be_preferred_and_comes_near_is_measured() -> None:
    near = trial(640, 40 * (1 - NEAR))
    far = trial(480, 40 * (1 - NEAR) - 1, family="b")
    leader = trial(320, 60, family="c")
    assert set(to_measure([near, far, leader], 40)) == {near, leader}


def test_of_equal_accuracy_the_fewest_threads_and_then_the_fastest() -> None:
    two, one, faster = (
        trial(320, 90, threads=2),
        trial(320, 50),
        trial(320, 60, family="b"),
    )
    assert by_preference([two, one, faster]) == [faster, one, two]


def test_one_step_larger_is_taken_at_the_threads_that_are_fastest() -> None:
    chosen, slow, fast = trial(320, 60), trial(480, 20), trial(480, 30, threads=2)
    other = trial(400, 50, family="b")
    assert step_larger([chosen, slow, fast, other, trial(640, 9)], chosen) is fast


def test_where_nothing_comes_near_the_fastest_is_measured() -> None:
    fast, slow = trials = [trial(160, 5), trial(320, 2)]
    assert to_measure(trials, 40) == [fast]
    fast.meets = False
    assert to_measure(trials, 40) == []
    assert best(trials, 40) is None
    assert slow.meets is None


def test_nothing_to_choose_from_is_nothing_to_measure() -> None:
    assert to_measure([], 40) == []
    assert best([], 40) is None


trials_and_truth = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from(SIZES),
        st.integers(1, 4),
        st.floats(0, 1),  # accuracy: it need not grow with the size
        st.floats(1, 100),  # what is true of its frames a second
        st.floats(-0.2, 0.2),  # how wrong the prediction is
    ),
    min_size=1,
    max_size=20,
)


@given(trials_and_truth, st.floats(1, 100))
def test_the_answer_meets_the_goal_and_nothing_better_that_does_was_passed_over(
    drawn: list[tuple[str, int, int, float, float, float]], goal: float
) -> None:
    truth: dict[Trial, float] = {}
    for family, imgsz, threads, accuracy, fps, wrong in drawn:
        one = Trial(
            family=family,
            imgsz=imgsz,
            threads=threads,
            accuracy=(accuracy,),
            predicted_fps=fps * (1 + wrong),
        )
        truth[one] = fps
    trials = list(truth)
    for _ in range(len(trials) + 1):
        wanted = to_measure(trials, goal)
        assert len(set(wanted)) == len(wanted)
        if not wanted:
            break
        for one in wanted:
            assert one.meets is None
            one.meets = truth[one] >= goal
    else:
        raise AssertionError("it never ends")
    chosen = best(trials, goal)
    meeting = [one for one in trials if truth[one] >= goal]
    if chosen is None:
        assert meeting == []
        assert any(one.meets is False for one in trials)  # there is a nearest one
        return
    assert chosen.meets
    assert chosen in meeting
    assert chosen.accuracy == max(one.accuracy for one in meeting)
    alike = [one for one in meeting if one.accuracy == chosen.accuracy]
    assert chosen.threads == min(one.threads for one in alike)
    larger = step_larger(trials, chosen)
    assert larger is None or larger.meets is not None
