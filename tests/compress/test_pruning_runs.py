"""A whole pruning, from weights to a run, and what its run is good for."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from musgd_cli import compress, train
from musgd_cli.errors import UsageError
from musgd_cli.records import PruneResult
from musgd_cli.runs import RunFolder
from musgd_cli.storage import read_record
from musgd_cli.train.events import Listeners, TrainingInterruptedError

pytest.importorskip("torch_pruning")

SIZE = 64


@pytest.fixture(scope="module")
def flags(given: Path) -> dict:
    return {
        "train.data": str(given / "squares.yaml"),
        "train.imgsz": SIZE,
        "train.batch": 3,
        "train.epochs": 2,
        "train.threads": 1,
        "bench.duration_s": 0.1,
        "bench.warmup_s": 0.1,
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in, with the weights of another folder."""
    return tmp_path_factory.mktemp("place")


def contents(folder: Path) -> dict[Path, tuple[bytes, int]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def pruned(given: Path, place: Path, flags: dict) -> PruneResult:
    before = contents(given)
    with contextlib.chdir(place):
        result = compress.prune(str(given / "weights.pt"), ratio=0.3, flags=flags)
    assert contents(given) == before
    return result


@pytest.fixture(scope="module")
def run(place: Path, pruned: PruneResult) -> RunFolder:
    return RunFolder(place / "runs" / pruned.run)


def test_it_leaves_a_whole_run(run: RunFolder, pruned: PruneResult):
    assert run.name == "weights-pruned"
    assert run.finished
    assert len(run.epochs()) == run.result().epochs == 2
    assert sorted(path.name for path in run.weights.iterdir()) == [
        "best.pt",
        "last.pt",
        "pruned.pt",
    ]
    assert read_record(run.prune_file, PruneResult) == pruned
    assert run.result().sha256 == pruned.sha256
    plan = run.plan()
    assert plan.settings["train.model"].value == "runs/weights-pruned/weights/pruned.pt"
    assert plan.settings["train.model"].source == "musgd prune"
    lr = plan.settings["optim.lr"]
    assert lr.source.startswith("musgd prune")
    assert lr.value == pytest.approx(lr.over[0].value / 3, rel=0.01)


def test_its_figures_agree_with_each_other(pruned: PruneResult):
    assert pruned.asked == "ratio"
    assert 0.3 <= pruned.removed < 0.33
    assert pruned.pruned.macs == pruned.tuned.macs < pruned.before.macs
    assert pruned.macs_share == pytest.approx(pruned.tuned.macs / pruned.before.macs)
    assert pruned.tuned.parameters < pruned.before.parameters
    assert pruned.tuned.size_mb < pruned.before.size_mb
    assert pruned.tuned.latency_ms == pruned.pruned.latency_ms  # one shape
    assert pruned.speedup == pruned.before.latency_ms.p50 / pruned.pruned.latency_ms.p50
    assert pruned.n >= 100
    assert pruned.threads == 1
    assert pruned.gate.split == "val"
    assert pruned.gate.n_images == 3
    assert all(after < before for before, after in pruned.widths.values())
    json.dumps(pruned.model_dump(mode="json"), allow_nan=False)


def test_ultralytics_opens_its_weights(run: RunFolder, pruned: PruneResult, ultralytics):
    import numpy as np

    (found,) = ultralytics.YOLO(run.weights / "best.pt").predict(
        np.zeros((SIZE, SIZE, 3), np.uint8), imgsz=SIZE, verbose=False, save=False
    )
    assert list(found.names.values()) == ["disc", "square", "bar: long"]


def test_it_is_exported_as_any_run_is(place: Path, run: RunFolder, pruned: PruneResult):
    from musgd_cli.compress import onnx_graph

    with contextlib.chdir(place):
        report = compress.export(
            str(run.path), targets=["jetson-nano"], flags={"compress.nms_free": False}
        )
    artifact = report.artifacts[0]
    graph = onnx_graph.load(place / artifact.path / "model.onnx").graph
    weights = {i.name: i.dims for i in graph.initializer}
    convolutions = [weights[node.input[1]][0] for node in graph.node if node.op_type == "Conv"]
    assert artifact.names == ("disc", "square", "bar: long")
    assert {after for _, after in pruned.widths.values()} <= set(convolutions)


def test_it_can_be_trained_on_and_pruned_again(
    place: Path, run: RunFolder, given: Path, flags: dict
):
    with contextlib.chdir(place):
        again = compress.prune(run.name, macs=0.9, flags={"train.epochs": 1, "train.name": "twice"})
    assert again.parent == "runs/weights-pruned/weights/best.pt"
    assert again.macs_share <= 0.9
    before = read_record(run.prune_file, PruneResult)
    assert again.before.macs == before.tuned.macs


def test_other_classes_are_refused(place: Path, run: RunFolder, given: Path, flags: dict):
    data = given / "others.yaml"
    data.write_text("train: images/train\nval: images/val\nnames: [square, disc, 'bar: long']\n")
    weights = str(run.weights / "best.pt")
    with contextlib.chdir(place):
        from musgd_cli.runs import create_run

        plan = run.plan()
        settings = {
            **plan.settings,
            "train.data": plan.settings["train.data"].model_copy(update={"value": str(data)}),
            "train.model": plan.settings["train.model"].model_copy(update={"value": weights}),
        }
        try:
            with pytest.raises(
                UsageError, match="is pruned and knows disc, square, bar: long"
            ) as e:
                train.train(plan.model_copy(update={"settings": settings}), create_run("others"))
            assert "musgd prune" in e.value.mend
            with pytest.raises(UsageError, match="numbers its classes otherwise"):
                compress.prune(weights, flags={**flags, "train.data": str(data)})
        finally:
            data.unlink()
        assert not Path("runs/others").exists()


@pytest.fixture
def stop_after_first_epoch() -> Callable[[], contextlib.AbstractContextManager[Listeners]]:
    finished = []
    return lambda: contextlib.nullcontext(
        Listeners(on_epoch=finished.append, stop=lambda: bool(finished))
    )


def test_an_interrupted_fine_tuning_is_resumed(
    place: Path, given: Path, flags: dict, pruned: PruneResult, stop_after_first_epoch
):
    from musgd_cli.train.checkpoint import load_weights

    with contextlib.chdir(place):
        with pytest.raises(TrainingInterruptedError, match="epoch 2 of 2") as stopped:
            compress.prune(
                str(given / "weights.pt"),
                flags={**flags, "train.name": "stopped"},
                follow=stop_after_first_epoch,
            )
        assert stopped.value.mend == "musgd train --resume runs/stopped"
        run = RunFolder(Path("runs/stopped"))
        half = read_record(run.prune_file, PruneResult)
        assert half.tuned is None
        assert half.gate is None
        assert half.widths == pruned.widths
        assert compress.is_unjudged(run)
        result = train.resume(run)
        assert result.epochs == 2
        assert result.resumed == 1
        # As if it had not been interrupted.
        ours, theirs = (
            load_weights(folder / "weights/best.pt").state_dict()
            for folder in (run.path, Path("runs/weights-pruned"))
        )
        assert all((ours[name] == value).all() for name, value in theirs.items())
        finished = compress.finish_pruning(run)
        assert finished.gate == pruned.gate
        assert finished.tuned.map50_95 == pruned.tuned.map50_95
        assert finished.tuned.latency_ms == half.pruned.latency_ms
        assert finished.sha256 == run.result().sha256
        assert read_record(run.prune_file, PruneResult) == finished
        assert not compress.is_unjudged(run)


@pytest.mark.slow
def test_the_parent_can_teach_and_an_interruption_changes_nothing(
    place: Path, given: Path, flags: dict, run: RunFolder, ultralytics, stop_after_first_epoch
):
    from musgd_cli.train.checkpoint import load_weights

    weights = str(given / "weights.pt")
    with contextlib.chdir(place):
        taught = compress.prune(weights, distill=True, flags={**flags, "train.name": "taught"})
        with pytest.raises(TrainingInterruptedError):
            compress.prune(
                weights,
                distill=True,
                flags={**flags, "train.name": "taught-on"},
                follow=stop_after_first_epoch,
            )
        train.resume(RunFolder(Path("runs/taught-on")))
        whole, resumed = (RunFolder(Path("runs") / name) for name in ("taught", "taught-on"))
        assert taught.distilled
        assert whole.plan().settings["train.distill"].value == weights
        assert whole.plan().settings["train.distill"].source == "--distill"
        assert whole.epochs()[0].losses["dis_loss"] > 0
        ours, theirs = (
            load_weights(folder.weights / "best.pt").state_dict() for folder in (whole, resumed)
        )
        assert ours.keys() == theirs.keys()
        assert all((ours[name] == value).all() for name, value in theirs.items())
        untaught = load_weights(run.weights / "best.pt").state_dict()
        assert any((ours[name] != value).any() for name, value in untaught.items())
        assert len(ultralytics.YOLO(whole.weights / "best.pt").names) == 3


@pytest.mark.parametrize(
    ("goal", "nearest"),
    [
        ({"ratio": 0.99}, "--ratio 0."),
        ({"macs": 0.01}, "--macs 0."),
        ({"speedup": 99}, "--speedup "),
    ],
)
def test_a_goal_out_of_reach_names_the_nearest(
    place: Path, given: Path, flags: dict, goal: dict, nearest: str
):
    with contextlib.chdir(place), pytest.raises(UsageError, match="cannot be reached") as refused:
        compress.prune(
            str(given / "weights.pt"), **goal, flags={**flags, "train.name": "unreached"}
        )
    assert nearest in refused.value.mend
    assert not (place / "runs/unreached").exists()
