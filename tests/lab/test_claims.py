"""The article's claims: the rules of their verdicts, their experiments, and what is missing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import made_reports
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import MODEL

from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import detect
from musgd_cli.hardware.power import best_meter
from musgd_cli.lab.claims import examine
from musgd_cli.lab.claims.article import CLAIMS, choose
from musgd_cli.lab.claims.boards import (
    BOARDS,
    judge_epochs,
    judge_power,
    judge_speed,
    require_board,
)
from musgd_cli.lab.claims.compression import saved
from musgd_cli.lab.claims.convergence import excess
from musgd_cli.lab.claims.curves import Curve, step_ratios
from musgd_cli.lab.claims.damping import example_beta, survives, verdict_of
from musgd_cli.lab.claims.matrix import SGD, Matrix
from musgd_cli.lab.claims.scale import QUICK, Scale
from musgd_cli.lab.claims.session import Order, Watchers
from musgd_cli.lab.claims.verdicts import above, at_most, either
from musgd_cli.lab.contenders import SWEEP_SEED, Contender
from musgd_cli.lab.trials import StoppedError
from musgd_cli.records import ClaimResult, Claims, Gate, Host
from musgd_cli.settings import settle
from musgd_cli.storage import read_record

TREES = Path(__file__).parents[1] / "boards"

trains = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("ultralytics") is None, reason="needs musgd-cli[train]"
)

TINY = Scale(
    name="quick",
    seeds=1,
    epochs=1,
    sweep_epochs=1,
    momenta=(0.6,),
    multiples=(30,),
    tuning_epochs=1,
    rounds=2,
    calib=4,
    flags={"train.imgsz": 64, "train.batch": 4, "optim.warmup_epochs": 0.0},
)


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a set of bright squares on noise."""
    cv2, np = pytest.importorskip("cv2"), pytest.importorskip("numpy")
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for number in range(count):
            image = rng.integers(60, 190, (64, 64, 3), np.uint8)
            image[20:44, 20:44] = 255
            cv2.imwrite(str(folder / "images" / split / f"{number}.png"), image)
            row = "0 0.5 0.5 0.375 0.375\n"
            (folder / "labels" / split / f"{number}.txt").write_text(row)
    file = folder / "squares.yaml"
    file.write_text("train: images/train\nval: images/val\nnames: [bright]\n")
    return file


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tiny.yaml"
    file.write_text(MODEL)
    return file


def curve(*losses: float, window: int = 1) -> Curve:
    return Curve(losses, window)


# ------------------------------------------------------------------------------------- the rules


def test_a_claim_that_only_some_seeds_bear_out_is_undecided() -> None:
    assert at_most([0.7, 0.74], 0.75) == "holds"
    assert at_most([0.9, 0.8], 0.75) == "does not hold"
    assert at_most([0.7, 0.8], 0.75) == "undecided"


def test_one_seed_decides_nothing_and_none_measures_nothing() -> None:
    assert at_most([0.1], 0.75) == "undecided"
    assert at_most([2.0], 0.75) == "undecided"
    assert at_most([], 0.75) == "cannot be measured here"


@given(st.lists(st.floats(0.1, 2), min_size=2), st.floats(0.1, 2))
def test_a_stricter_limit_never_makes_a_claim_hold(figures: list[float], limit: float) -> None:
    order = ["does not hold", "undecided", "holds"]
    assert order.index(at_most(figures, limit * 0.9)) <= order.index(at_most(figures, limit))


def test_an_interval_around_nothing_is_undecided_and_one_too_small_to_matter_is_not() -> None:
    assert above((0.02, 0.1), 0.01) == "holds"
    assert above((-0.05, 0.1), 0.01) == "undecided"
    assert above((-0.005, 0.005), 0.01) == "does not hold"


def test_either_way_of_being_right_is_enough() -> None:
    assert either("does not hold", "holds") == "holds"
    assert either("does not hold", "undecided") == "undecided"
    assert either("does not hold", "cannot be measured here") == "does not hold"


# ---------------------------------------------------------------------------------- convergence


def test_steps_are_counted_to_the_loss_that_the_baseline_ends_with() -> None:
    sgd = curve(8, 7, 6, 5, 4, 3, 2, 1)
    fast = curve(8, 5, 2, 1, 1, 1, 1, 1)
    slow = curve(8, 8, 8, 8, 8, 8, 8, 8)
    assert step_ratios([fast], [sgd]).ratios == (0.5,)
    never = step_ratios([slow], [sgd])
    assert (never.ratios, never.never) == ((1.0,), 1)
    assert "never in 1 of 1" in never.in_words


def test_a_single_lucky_step_reaches_nothing() -> None:
    assert curve(8, 1, 8, 8, window=2).steps_to(2) is None


def test_a_baseline_that_ended_in_nan_is_no_baseline() -> None:
    assert step_ratios([curve(2, 1)], [curve(2, math.nan)]).ratios == ()


def test_the_excess_is_what_one_loses_who_does_not_tune() -> None:
    assert excess([[2.0, 2.0], [2.0, 2.0]]) == 0
    assert excess([[1.0, 2.0], [3.0, 2.0]]) == pytest.approx(1.0)


# -------------------------------------------------------------------------------------- damping


@trains
def test_the_worked_example_of_the_article() -> None:
    host = Host(board="x86-cpu")
    article, ours = (
        settle(host=host, environ={}, flags={"optim.name": name}).optim
        for name in ("musgd-article", "musgd")
    )
    assert example_beta(article) == pytest.approx(0.9 / 11, abs=1e-6)
    assert example_beta(ours) == pytest.approx(0.9, abs=1e-6)


def test_what_a_constant_momentum_survives_too_adaptation_does_not_explain() -> None:
    assert verdict_of([30, 30], [[1, 1], [1, 1]], 300) == "holds"
    assert verdict_of([30, 30], [[1, 1], [30, 30]], 300) == "does not hold"


def test_where_nothing_diverges_nothing_is_prevented_and_nothing_refuted() -> None:
    assert verdict_of([300, 300], [[300, 300]], 300) == "undecided"


def test_to_end_above_the_untrained_loss_is_no_survival() -> None:
    assert survives(curve(5, 4))
    assert not survives(curve(5, 6))
    assert not survives(curve(5, math.nan))
    assert not survives(None)


# --------------------------------------------------------------------------------- quantization


def gate(drop: float, half: float) -> Gate:
    return Gate(
        verdict="passed",
        max_drop=0.01,
        map50_95_drop=drop,
        interval=(drop - half, drop + half),
        map50_95=0.5 - drop,
        map50=0.7,
        recall_small=None,
        parent_map50_95=0.5,
        parent_map50=0.7,
        parent_recall_small=None,
        match_recall=None,
        match_precision=None,
        n_boxes=10,
        box_px=None,
        score_difference=None,
        confidence_shift=None,
        n_images=20,
        data="d.yaml",
        split="test",
        scored_by="onnxruntime",
    )


def test_what_quantization_saves_is_told_with_the_noise_of_both_models() -> None:
    sharp, (low, high) = saved([(gate(0.01, 0.001), gate(0.05, 0.001))] * 2)
    assert sharp == pytest.approx(0.08)
    assert 0 < low < sharp < high
    _, blurred = saved([(gate(0.01, 0.05), gate(0.05, 0.05))] * 2)
    assert above(blurred, 0.01) == "undecided"


# --------------------------------------------------------------------------------------- boards


@pytest.mark.parametrize(("tree", "title"), [("pi4b", "Pi 4B"), ("jetson-nano", "Jetson Nano")])
def test_the_claims_of_a_board_are_answered_on_it(tree: str, title: str) -> None:
    assert title in require_board(detect(TREES / tree, {}), *BOARDS).title


@pytest.mark.parametrize("tree", ["x86-cpu", "pi5", "jetson-nano-2gb"])
def test_another_machine_says_which_board_is_missing(tree: str) -> None:
    with pytest.raises(UnsupportedError, match="needs a Raspberry Pi 4B or a Jetson Nano"):
        require_board(detect(TREES / tree, {}), *BOARDS)


def test_an_emulated_board_answers_for_none() -> None:
    with pytest.raises(UnsupportedError, match="emulated"):
        require_board(detect(TREES / "emulated-pi4b", {}), *BOARDS)


def test_epochs_are_judged_against_sgds() -> None:
    assert judge_epochs("musgd", [20.0, 21.0], [30.0, 30.0]).verdict == "holds"
    assert judge_epochs("musgd", [30.0, 31.0], [30.0, 30.0]).verdict == "does not hold"


def test_speed_holds_only_if_all_of_its_interval_does() -> None:
    claim = BOARDS["pi4b"]  # 35 FPS: 28.6 ms a frame

    def verdict(p50: float, around: float) -> str:
        interval = (p50 - around, p50 + around)
        report = made_reports.report([p50] * 5, p50_interval_ms=interval)
        return judge_speed("musgd", claim, [report]).verdict

    assert verdict(20, 1) == "holds"
    assert verdict(60, 1) == "does not hold"
    assert verdict(27.6, 2) == "undecided"


def test_power_needs_both_the_watts_and_the_small_objects() -> None:
    def verdict(**fields: object) -> str:
        report = made_reports.report(**{**made_reports.METERED, **fields})
        return judge_power("musgd", [report]).verdict

    assert verdict(power_w=5.0, recall_small=0.8) == "holds"
    assert verdict(power_w=5.0, recall_small=0.4) == "does not hold"
    assert verdict(power_w=7.0, recall_small=0.8) == "does not hold"
    assert verdict(power_w=5.0, recall_small=None, n_small=0) == "undecided"


def test_a_meter_that_gave_nothing_is_named() -> None:
    with pytest.raises(UnsupportedError, match="the sensor died"):
        judge_power("musgd", [made_reports.report(power_note="the sensor died")])


# ------------------------------------------------------------------------------------ a session


def test_every_claim_has_an_experiment_and_a_rule() -> None:
    assert list(CLAIMS) == [f"C{number}" for number in range(1, 12)]
    assert all("hold" in claim.rule for claim in CLAIMS.values())
    assert choose(("c6", "C1", "C6")) == ("C1", "C6")
    with pytest.raises(UsageError, match="C12"):
        choose(("C12",))


def examined(folder: Path, data: Path, *claims: str, tree: str = "x86-cpu") -> Claims:
    order = Order(folder=folder, scale=TINY, claims=claims, data=str(data))
    return examine(order, Watchers(), TREES / tree)


def test_elsewhere_the_missing_board_is_named(tmp_path: Path, squares: Path) -> None:
    found = examined(tmp_path / "claims", squares, "C3", "C9", "C10")
    assert [result.claim for result in found.results] == ["C3", "C9", "C10"]
    for result in found.results:
        for finding in result.findings:
            assert finding.verdict == "cannot be measured here"
            assert "Raspberry Pi 4B" in finding.why
            assert "x86-cpu" in finding.why
    assert found.finished
    assert read_record(tmp_path / "claims" / "claims.json", Claims) == found


def test_on_the_board_a_missing_meter_is_named(tmp_path: Path, squares: Path) -> None:
    found = examined(tmp_path / "claims", squares, "C10", tree="pi4b")
    assert "no meter on this board" in found.results[0].findings[0].why
    assert best_meter(TREES / "pi4b-ina219") is not None


def test_a_missing_extra_is_told_and_the_others_go_on(tmp_path: Path, squares: Path) -> None:
    # In a process of its own: one that has met Ultralytics would not look for it again.
    code = (
        "import sys; sys.modules['ultralytics'] = None\n"
        "from musgd_cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    typed = ("claims", "--claim", "C6", "--claim", "C9", "--data", str(squares), "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *typed], cwd=tmp_path, capture_output=True, text=True
    )
    cost, speed = Claims.parse(json.loads(done.stdout)).results
    assert cost.findings[0].verdict == "cannot be measured here"
    assert "[train]'" in cost.findings[0].why
    assert len(speed.findings) == 2


@trains
def test_memory_and_cost_agree_with_the_benchmark(tmp_path: Path, squares: Path) -> None:
    from musgd_cli.lab import step_cost

    found = examined(tmp_path / "claims", squares, "C6")
    for finding, ruler in zip(found.results[0].findings, ("musgd", "rowcol"), strict=True):
        assert finding.figure is not None
        within = finding.figure <= step_cost.LIMITS[ruler].ratio
        assert finding.verdict == ("holds" if within else "does not hold")
        assert finding.spread is not None
        assert finding.spread[0] <= finding.figure <= finding.spread[1]


def test_other_settings_do_not_mix_with_a_folders(tmp_path: Path, squares: Path) -> None:
    examined(tmp_path / "claims", squares, "C9")
    order = Order(
        folder=tmp_path / "claims",
        scale=TINY,
        claims=("C9",),
        data=str(squares),
        flags={"train.imgsz": 96},
    )
    with pytest.raises(UsageError, match=r"train\.imgsz 64, now 96"):
        examine(order, Watchers())


def test_results_of_other_claims_are_not_written_over(tmp_path: Path, squares: Path) -> None:
    found = examined(tmp_path / "claims", squares, "C3", "C9")
    with pytest.raises(UsageError, match="write over: C3"):
        examined(tmp_path / "claims", squares, "C9")
    assert read_record(tmp_path / "claims" / "claims.json", Claims) == found
    more = examined(tmp_path / "claims", squares, "C3", "C9", "C10")
    assert [result.claim for result in more.results] == ["C3", "C9", "C10"]


def test_what_the_experiments_choose_is_not_to_be_set(tmp_path: Path, squares: Path) -> None:
    order = Order(folder=tmp_path / "claims", data=str(squares), flags={"optim.lr": 0.1})
    with pytest.raises(UsageError, match=r"optim\.lr"):
        examine(order, Watchers())
    assert not (tmp_path / "claims").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, squares: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no claims"):
        examined(tmp_path / "claims", squares, "C9")


@pytest.fixture
def make_matrix(tmp_path: Path, squares: Path, model: Path) -> Callable[..., Matrix]:
    def make(tell: Callable[[str], None], stop: Callable[[], bool] = lambda: False) -> Matrix:
        flags = {
            **TINY.flags,
            "train.data": str(squares),
            "train.model": str(model),
            "train.threads": 1,
        }
        return Matrix(
            folder=tmp_path,
            flags=flags,
            scale=TINY,
            host=Host(board="x86-cpu"),
            tell=tell,
            stop=stop,
        )

    return make


@trains
def test_trainings_are_shared_and_those_that_are_finished_kept(
    make_matrix: Callable[..., Matrix],
) -> None:
    told: list[str] = []
    matrix = make_matrix(told.append)
    [run] = matrix.score([SGD])[SGD.label]
    assert run.finished
    rate = matrix.rate(SGD)
    assert run.name == SGD.trial_name(rate, 0)
    assert rate in matrix.rates(SGD)
    assert run.plan().train.seed != SWEEP_SEED
    assert len(matrix.used) == 4  # three learning rates, one scored
    trained = sum(line.startswith("trained") for line in told)
    assert trained == 4

    told.clear()
    assert matrix.score([SGD])[SGD.label] == [run]
    again = make_matrix(told.append)
    assert again.score([SGD])[SGD.label] == [run]
    assert not any(line.startswith("trained") for line in told)


@trains
def test_a_training_that_diverges_is_a_finding_and_no_failure(
    make_matrix: Callable[..., Matrix],
) -> None:
    told: list[str] = []
    matrix = make_matrix(told.append)
    trial = matrix.trial(Contender.parse("sgd"), 1e30, 0, 1)
    matrix.train("rising", [trial])
    assert not survives(matrix.curve("rising", trial))
    # Where that leaves no seed, claims are told so, and do not look for a best of none.
    matrix.diverged.add(matrix.run("rising", trial).path)
    with pytest.raises(MusgdError, match="sgd diverged"):
        matrix.complete("rising", {"sgd": [trial]})


@trains
def test_who_asks_to_stop_is_heard(make_matrix: Callable[..., Matrix]) -> None:
    matrix = make_matrix(lambda _: None, stop=lambda: True)
    with pytest.raises(StoppedError):
        matrix.score([SGD])


@trains
def test_another_failure_is_met_once(make_matrix: Callable[..., Matrix], tmp_path: Path) -> None:
    matrix = make_matrix(lambda _: None)
    lost = matrix.trial(SGD, 0.01, 0, 1, train__model=str(tmp_path / "gone.pt"))
    with pytest.raises(MusgdError) as first:
        matrix.train("scored", [lost])
    with pytest.raises(MusgdError) as second:
        matrix.train("scored", [lost])
    assert second.value is first.value


@trains
@pytest.mark.slow
def test_the_whole_quick_run(tmp_path: Path) -> None:
    results: list[ClaimResult] = []
    order = Order(folder=tmp_path / "claims", jobs=2)
    found = examine(order, Watchers(on_result=results.append))
    assert tuple(results) == found.results
    assert [result.claim for result in found.results] == list(CLAIMS)
    assert found.seeds == QUICK.seeds
    verdicts = {result.claim: result.findings[0].verdict for result in found.results}
    assert verdicts["C2"] == "does not hold"
    for claim in ("C1", "C4", "C5", "C6", "C7", "C11"):
        assert verdicts[claim] != "cannot be measured here", claim
    json.loads(found.model_dump_json())
