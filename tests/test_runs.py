"""Run folders: their names, which is the newest, what they hold."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from invented_reports import parent, report

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.records import BenchReports, Plan, StepLog, TrainResult
from musgd_cli.runs import (
    RunFolder,
    artifact_folders,
    create_run,
    find_run,
    free_name,
    newest_finished,
    read_artifact,
    read_reports,
    run_of,
)
from musgd_cli.storage import write_record


def finish(run: RunFolder, when: float) -> RunFolder:
    write_record(run.plan_file, Plan(profile="x86-cpu", target="pi4b", settings={}))
    result = TrainResult(
        run=run.name,
        weights="weights/best.pt",
        sha256="0" * 64,
        optimizer="musgd",
        epochs=1,
        steps=1,
        seconds=1.0,
        map50_95=None,
        map50=None,
        peak_memory_mb=None,
        clipped_share=None,
        beta_mean=None,
        data="d.yaml",
        n_images=1,
        n_val_images=1,
        names=("cell",),
        model="yolo26n.yaml",
        imgsz=32,
        batch=1,
        seed=0,
        device="cpu",
        threads=1,
        target="pi4b",
    )
    write_record(run.train_file, result)
    os.utime(run.train_file, (when, when))
    return run


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", ".hidden", "a/b", "a/", "/a", "../a", "a\0b", "a\nb", "a\x1b[31m"],
)
def test_a_run_name_is_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is no run name"):
        create_run(name, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["barn", "barn-1", "barn.v2", "Scheune ½", "-x"])
def test_a_new_run_has_a_folder_of_its_own(tmp_path: Path, name: str) -> None:
    run = create_run(name, tmp_path / "runs")
    assert run.path.is_dir()
    assert run.name == name
    assert not run.finished


def test_an_existing_run_is_never_taken_over(tmp_path: Path) -> None:
    run = create_run("a", tmp_path)
    run.plan_file.write_text("mine")
    with pytest.raises(UsageError, match="exists already") as caught:
        create_run("a", tmp_path)
    assert "--name" in caught.value.mend
    assert run.plan_file.read_text() == "mine"


def test_where_no_run_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(MusgdError, match="cannot write /proc/runs"):
        create_run("a", Path("/proc/runs"))
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(MusgdError, match="cannot write"):
        create_run("a", tmp_path / "runs")
    with pytest.raises(MusgdError, match="cannot write"):
        create_run("a" * 300, tmp_path)


def test_the_first_free_name(tmp_path: Path) -> None:
    assert free_name("demo", tmp_path) == "demo"
    create_run("demo", tmp_path)
    assert free_name("demo", tmp_path) == "demo-2"
    create_run("demo-2", tmp_path)
    create_run("demo-4", tmp_path)
    assert free_name("demo", tmp_path) == "demo-3"


def test_the_newest_run_is_the_one_that_finished_last(tmp_path: Path) -> None:
    first = finish(create_run("z-first", tmp_path), when=1000)
    last = finish(create_run("a-last", tmp_path), when=3000)
    finish(create_run("middle", tmp_path), when=2000)
    create_run("unfinished", tmp_path)
    finish(RunFolder(tmp_path / ".half"), when=4000)
    assert newest_finished(tmp_path) == last
    os.utime(first.train_file, (5000, 5000))
    assert newest_finished(tmp_path) == first


def test_no_finished_run(tmp_path: Path) -> None:
    create_run("unfinished", tmp_path)
    for root in (tmp_path, tmp_path / "none"):
        with pytest.raises(UsageError, match="no finished run") as caught:
            newest_finished(root)
        assert "musgd" in caught.value.mend


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    run = finish(create_run("barn", tmp_path), when=1)
    assert find_run("barn", tmp_path) == run
    assert find_run(str(run.path), tmp_path / "elsewhere").path == run.path
    finish(RunFolder(tmp_path / ".half"), when=1)
    with pytest.raises(UsageError, match="barm is no run") as caught:
        find_run("barm", tmp_path)
    assert caught.value.mend == "runs here: barn"
    with pytest.raises(UsageError) as caught:
        find_run("barn", tmp_path / "none")
    assert "musgd train" in caught.value.mend


def test_an_unfinished_run_says_how_to_go_on(tmp_path: Path) -> None:
    run = create_run("barn", tmp_path)
    with pytest.raises(UsageError, match="is not finished") as caught:
        run.result()
    assert caught.value.mend == f"musgd train --resume {run.path}"
    with pytest.raises(UsageError, match="does not exist"):
        run.plan()


def test_a_finished_run_gives_its_plan_and_result(tmp_path: Path) -> None:
    run = finish(create_run("barn", tmp_path), when=1)
    assert run.finished
    assert run.plan().target == "pi4b"
    assert run.result().run == "barn"


def test_the_line_that_was_being_written_is_left_out(tmp_path: Path) -> None:
    run = create_run("barn", tmp_path)
    assert run.steps() == []
    step = StepLog(step=1, epoch=1, loss=2.5, grad_norm=None, clipped=False, beta=0.9, lr=0.1)
    line = step.model_dump_json()
    run.steps_file.write_text(f"{line}\n{line[:40]}")
    assert run.steps() == [step]


def test_artifacts_of_a_run_of_a_folder_and_one_alone(tmp_path: Path) -> None:
    run = create_run("barn", tmp_path)
    names = ["pi4b-onnxruntime-fp32-256", "pi4b-ncnn-fp32-256"]
    for name in [*names, ".pi4b-ncnn-int8-256.half"]:
        (run.artifacts / name).mkdir(parents=True)
        (run.artifacts / name / "artifact.json").touch()
    (run.artifacts / "notes").mkdir()
    found = [run.artifacts / name for name in sorted(names)]
    assert artifact_folders(run.path) == found
    assert artifact_folders(run.artifacts) == found
    assert artifact_folders(found[0]) == [found[0]]
    assert artifact_folders(tmp_path / "none") == []


def test_what_is_no_artifact_is_told_in_words(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"artifact\.json does not exist"):
        read_artifact(tmp_path)
    (tmp_path / "artifact.json").write_text('{"schema": "1.0"}')
    with pytest.raises(UsageError, match="holds no Artifact"):
        read_artifact(tmp_path)


@pytest.mark.parametrize("given", ["runs/a/artifacts/x", "artifacts/x", "x", "."])
def test_the_run_of_an_artifact_however_its_folder_is_named(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = tmp_path / "runs/a/artifacts/x"
    artifact.mkdir(parents=True)
    monkeypatch.chdir(artifact.parents[len(Path(given).parts) - 1] if given != "." else artifact)
    run = run_of(Path(given))
    assert run is not None
    assert run.path.resolve() == tmp_path / "runs/a"


def test_a_folder_called_artifacts_is_no_run_by_that_alone(tmp_path: Path) -> None:
    artifact = tmp_path / "stick/artifacts/x"
    artifact.mkdir(parents=True)
    assert run_of(artifact) is None
    (tmp_path / "stick/plan.json").write_text("{}")
    run = run_of(artifact)
    assert run is not None
    assert run.path == tmp_path / "stick"


# ---------------------------------------------------------------------------------- bench reports


def test_a_file_of_reports_is_one_or_what_json_printed(tmp_path: Path) -> None:
    one, many = tmp_path / "one.json", tmp_path / "many.json"
    one.write_text(report().model_dump_json())
    many.write_text(BenchReports(reports=(report(), parent())).model_dump_json())
    assert read_reports(one) == (report(),)
    assert read_reports(many) == (report(), parent())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no BenchReport"),
        ('{"artifact": "a"}', "holds no BenchReport: artifact_sha256"),
        ('{"reports": 3}', "holds no BenchReports: reports"),
        ('{"reports": []}', "holds no report"),
        ('{"reports": [{}]}', r"holds no BenchReports: reports\.0"),
        ('{"schema": "9.0"}', "holds no BenchReport"),
    ],
)
def test_what_holds_no_report_is_told_in_words(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(UsageError, match=rf"a\.json {words}"):
        read_reports(tmp_path / "a.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_report_with_a_figure_that_is_no_number_is_refused(tmp_path: Path, number: str) -> None:
    data = report().model_dump_json().replace('"p50":70.12', f'"p50":{number}', 1)
    (tmp_path / "a.json").write_text(data)
    with pytest.raises(UsageError, match=r"a\.json holds no BenchReport: latency_ms\.p50"):
        read_reports(tmp_path / "a.json")


def test_reports_of_a_newer_version_are_read(tmp_path: Path) -> None:
    data = json.loads(BenchReports(reports=(report(),)).model_dump_json())
    data["schema"] = data["reports"][0]["schema"] = "1.99"
    data["reports"][0]["news"] = 1
    (tmp_path / "a.json").write_text(json.dumps(data))
    assert len(read_reports(tmp_path / "a.json")) == 1
