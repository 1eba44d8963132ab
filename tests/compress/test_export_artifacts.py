"""What an export leaves: whole folders that say the truth, and run."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from musgd_cli import compress
from musgd_cli.compress import litert as litert_format
from musgd_cli.compress import ncnn as ncnn_format
from musgd_cli.compress import openvino as openvino_format
from musgd_cli.compress.formats import missing
from musgd_cli.errors import ExitCode, MusgdError, UnsupportedError, UsageError
from musgd_cli.runs import read_artifact
from musgd_cli.runtime import open_engine
from musgd_cli.storage import sha256_of

HAS_LITERT = not missing(litert_format.NEEDS["int8"])


def test_each_target_gets_its_parent_and_its_runtimes(job):
    made = [(a.target, a.runtime, a.precision) for a in job.report.artifacts]
    has_bf16 = ("x86-cpu", "openvino", "bf16") in made
    assert made == [
        ("x86-cpu", "onnxruntime", "fp32"),
        ("x86-cpu", "openvino", "fp32"),
        *([("x86-cpu", "openvino", "bf16")] if has_bf16 else []),
        ("x86-cpu", "openvino", "int8"),
        ("x86-cpu", "onnxruntime", "int8"),
        ("pi4b", "onnxruntime", "fp32"),
        ("pi4b", "ncnn", "fp16"),
        ("pi4b", "ncnn", "int8"),
        *([("pi4b", "litert", "int8")] if HAS_LITERT else []),
        ("jetson-nano", "onnxruntime", "fp32"),
        ("jetson-nano", "tensorrt", "fp16"),
    ]
    skipped = {(s.target, s.runtime): s.why for s in job.report.skipped}
    assert ("x86-cpu", "openvino") in skipped or has_bf16
    assert ("pi4b", "litert") in skipped or HAS_LITERT
    # Maxwell has no int8: that is said, and what it has is made in its place.
    assert "fp16" in skipped["jetson-nano", "tensorrt"]
    assert "Maxwell" in skipped["jetson-nano", "tensorrt"]
    assert all(s.mend for s in job.report.skipped)
    assert job.report.unmade == ()


def test_each_model_is_held_against_its_parent(job, given):
    for artifact in job.report.artifacts:
        if (artifact.runtime, artifact.precision) == ("onnxruntime", "fp32"):
            assert artifact.gate is None
            continue
        assert artifact.gate.n_images == 3
        assert artifact.gate.split == "val"
        assert artifact.gate.data == str(given / "squares.yaml")
        ran = "onnxruntime" if artifact.runtime == "tensorrt" else artifact.runtime
        assert artifact.gate.scored_by.startswith(f"{ran} ")
    nano = job.artifact("jetson-nano", "tensorrt", "fp16")
    assert nano.gate.has_stand_in


def test_the_convolutions_are_named_by_what_they_became(job):
    for runtime, target in (("openvino", "x86-cpu"), ("onnxruntime", "x86-cpu"), ("ncnn", "pi4b")):
        artifact = job.artifact(target, runtime, "int8")
        assert len(artifact.int8_layers) > 50
        assert not set(artifact.int8_layers) & set(artifact.float_layers)


def test_without_data_nothing_is_gated_and_float_models_are_made(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = compress.export(
        str(given / "weights.pt"),
        targets=["x86-cpu"],
        flags={"train.imgsz": 64, "compress.precisions": ("fp32",)},
    )
    assert [a.gate for a in report.artifacts] == [None, None]


def test_several_sizes(run_export, tmp_path):
    flags = {"compress.runtimes": ("onnxruntime",)}
    made = run_export(tmp_path, targets=["x86-cpu"], sizes=(96, 64, 96), flags=flags)
    assert [a.imgsz for a in made.report.artifacts] == [96, 64]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x86-cpu-onnxruntime-fp32-64",
        "x86-cpu-onnxruntime-fp32-96",
    ]


def test_strict_makes_nothing_where_something_cannot_be_made(run_export, tmp_path):
    with pytest.raises(UnsupportedError, match=r"jetson-nano tensorrt: .*Maxwell"):
        # The Nano first: what is said is the first fault, and an x86 CPU may lack bf16.
        run_export(tmp_path / "out", targets=["jetson-nano", "x86-cpu"], int8=True, strict=True)
    assert not (tmp_path / "out").exists()


def test_a_target_of_which_nothing_can_be_made_is_named(run_export, tmp_path, monkeypatch):
    monkeypatch.setitem(ncnn_format.NEEDS, "fp16", ("no_such_module",))
    flags = {"compress.runtimes": ("ncnn",)}
    made = run_export(tmp_path, targets=["pi4b"], flags=flags)
    assert made.report.unmade == ("pi4b",)
    assert [a.runtime for a in made.report.artifacts] == ["onnxruntime"]


def test_a_run_without_its_data_still_gives_float_models(given, tmp_path, monkeypatch):
    """The run was copied to another machine; its data was not."""
    from musgd_cli.hardware import detect
    from musgd_cli.runs import RunFolder
    from musgd_cli.settings import settle
    from musgd_cli.storage import write_record

    run = RunFolder(tmp_path / "runs" / "moved")
    run.weights.mkdir(parents=True)
    shutil.copyfile(given / "weights.pt", run.weights / "best.pt")
    flags = {"train.data": "/gone/data.yaml", "train.imgsz": 64, "compress.precisions": ("fp32",)}
    write_record(run.plan_file, settle(host=detect(), target="x86-cpu", flags=flags))
    run.train_file.write_text(json.dumps(TRAINED))
    monkeypatch.chdir(tmp_path)
    warnings: list[str] = []
    report = compress.export("moved", on_warning=warnings.append)
    assert len(report.artifacts) == 2
    assert "nothing is held against its float parent" in warnings[0]
    with pytest.raises(UsageError, match="gone"):
        compress.export("moved", int8=True)


TRAINED = {
    "run": "moved",
    "weights": "weights/best.pt",
    "sha256": "0" * 64,
    "optimizer": "musgd",
    "epochs": 1,
    "steps": 1,
    "seconds": 1.0,
    "map50_95": None,
    "map50": None,
    "peak_memory_mb": None,
    "clipped_share": None,
    "beta_mean": None,
    "data": "/gone/data.yaml",
    "n_images": 1,
    "n_val_images": 1,
    "names": ["disc", "square", "bar: long"],
    "model": "yolo26n.yaml",
    "imgsz": 64,
    "batch": 1,
    "seed": 0,
    "device": "cpu",
    "threads": 1,
    "target": "x86-cpu",
}


def test_a_folder_is_named_by_what_was_built_and_holds_its_record(job):
    folders = sorted(path.name for path in job.place.iterdir())
    assert folders == sorted(
        f"{a.target}-{a.runtime}-{a.precision}-{a.imgsz}" for a in job.report.artifacts
    )
    for artifact in job.report.artifacts:
        folder = Path(artifact.path)
        assert read_artifact(folder) == artifact
        assert artifact.sha256 == sha256_of(folder / name for name in artifact.files)
        assert len((folder / "README.md").read_text().splitlines()) <= 16


def test_hashes_chain_from_the_weights(job, given):
    parent = job.artifact("x86-cpu", "onnxruntime", "fp32")
    assert parent.parent_sha256 == sha256_of([given / "weights.pt"])
    assert job.artifact("x86-cpu", "openvino", "int8").parent_sha256 == parent.sha256
    assert job.artifact("x86-cpu", "onnxruntime", "int8").parent_sha256 == parent.sha256


def test_the_same_weights_give_the_same_bytes(job, run_export, tmp_path):
    again = run_export(tmp_path, targets=["x86-cpu"], flags={"compress.runtimes": ("onnxruntime",)})
    assert again.report.artifacts[0].sha256 == job.artifact("x86-cpu", "onnxruntime", "fp32").sha256


def test_the_parent_answers_as_torch_does(job, given):
    import torch

    from musgd_cli.train.checkpoint import load_weights

    artifact = job.artifact("x86-cpu", "onnxruntime", "fp32")
    x = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    model = load_weights(given / "weights.pt").eval()
    model.end2end = False
    with torch.no_grad():
        expected = model(torch.from_numpy(x))[0].numpy()
    got = open_engine(Path(artifact.path), artifact, 1).infer(x)
    assert got.shape == (1, 7, 84)
    np.testing.assert_allclose(got[:, :4], expected[:, :4], atol=64e-4)
    np.testing.assert_allclose(got[:, 4:], expected[:, 4:], atol=1e-4)


def test_every_model_runs_in_its_own_engine(job):
    x = np.random.default_rng(2).random((1, 3, 64, 64), dtype=np.float32)
    for artifact in job.report.artifacts:
        if artifact.runtime == "tensorrt":
            with pytest.raises(UnsupportedError, match="no NVIDIA"):
                open_engine(Path(artifact.path), artifact, 1)
            continue
        output = open_engine(Path(artifact.path), artifact, 1).infer(x)
        assert output.shape == (1, 7, 84)
        assert np.isfinite(output).all()


def test_calibration_names_training_images_only(job):
    record = job.artifact("x86-cpu", "openvino", "int8").calibration
    assert record.split == "train"
    assert record.n_images == len(record.images) == 4
    assert all(image.startswith("images/train/") for image in record.images)
    assert job.artifact("x86-cpu", "onnxruntime", "fp32").calibration is None


def test_inputs_are_left_as_they_were(job):
    assert job.after == job.before


def test_metadata_survives_for_ultralytics(job):
    import ast

    import onnx
    import yaml

    parent = Path(job.artifact("x86-cpu", "onnxruntime", "fp32").path)
    props = {p.key: p.value for p in onnx.load(parent / "model.onnx").metadata_props}
    assert ast.literal_eval(props["names"]) == {0: "disc", 1: "square", 2: "bar: long"}
    assert (props["stride"], props["task"]) == ("32", "detect")
    quantized = Path(job.artifact("x86-cpu", "onnxruntime", "int8").path)
    kept = {p.key: p.value for p in onnx.load(quantized / "model.onnx").metadata_props}
    assert kept["names"] == props["names"]
    for folder in job.place.glob("*-ncnn-*"):
        assert yaml.safe_load((folder / "metadata.yaml").read_text())["imgsz"] == [64, 64]


def test_ultralytics_runs_the_onnx(job):
    from ultralytics import YOLO

    parent = Path(job.artifact("x86-cpu", "onnxruntime", "fp32").path)
    model = YOLO(parent / "model.onnx", task="detect")
    results = model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
    assert results[0].names == {0: "disc", 1: "square", 2: "bar: long"}


def test_a_second_export_replaces_and_says_so(job, run_export, tmp_path):
    options = {"targets": ["x86-cpu"], "flags": {"compress.runtimes": ("onnxruntime",)}}
    (head,) = run_export(tmp_path, **options).notes
    assert head.startswith("x86-cpu: the head that needs NMS (profile x86-cpu: ")
    again = run_export(tmp_path, **options)
    assert again.notes[1:] == [f"replaced {tmp_path / 'x86-cpu-onnxruntime-fp32-64'}"]
    assert [path.name for path in tmp_path.iterdir()] == ["x86-cpu-onnxruntime-fp32-64"]


@pytest.mark.parametrize("name", ["onnxruntime-fp32", "openvino-fp32"])
def test_what_is_no_artifact_is_not_replaced(run_export, tmp_path, name):
    folder = tmp_path / f"x86-cpu-{name}-64"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="no artifact"):
        run_export(tmp_path, targets=["x86-cpu"])
    assert (folder / "thesis.txt").read_text() == "mine"
    assert list(tmp_path.iterdir()) == [folder]  # told before anything is made


def test_a_build_that_breaks_leaves_nothing_half_made(run_export, tmp_path, monkeypatch):
    def breaks(material, folder, precision):
        (folder / "model.xml").write_text("<half")
        raise KeyboardInterrupt

    monkeypatch.setattr(openvino_format, "build", breaks)
    with pytest.raises(KeyboardInterrupt):
        run_export(tmp_path, targets=["x86-cpu"], int8=True)
    assert [path.name for path in tmp_path.iterdir()] == ["x86-cpu-onnxruntime-fp32-64"]


def test_a_model_unlike_its_parent_is_refused(run_export, tmp_path, monkeypatch):
    import onnx

    build = openvino_format.build

    def scrambles(material, folder, precision):
        model = onnx.load(material.onnx)
        bias = next(t for t in model.graph.initializer if t.name.endswith("cv2.0.2.bias"))
        bias.raw_data = np.full(4, 50, np.float32).tobytes()
        onnx.save(model, folder / "other.onnx")
        return build(replace(material, onnx=folder / "other.onnx"), folder, precision)

    monkeypatch.setattr(openvino_format, "build", scrambles)
    flags = {"compress.precisions": ("fp32",)}
    made = run_export(tmp_path, targets=["x86-cpu"], int8=True, flags=flags)
    assert not list(tmp_path.glob("*openvino-fp32*"))
    # What ails one does not keep the others from being made.
    assert made.artifact("x86-cpu", "onnxruntime", "int8")
    (failure,) = (row for row in made.report.skipped if row.exit_code is not None)
    assert failure.exit_code == ExitCode.FAILED
    assert "differs from its parent" in failure.why


def test_the_head_without_nms(run_export, tmp_path):
    flags = {
        "compress.nms_free": True,
        "compress.runtimes": ("openvino", "ncnn"),
        "compress.precisions": ("fp32",),
    }
    made = run_export(tmp_path, targets=["x86-cpu"], flags=flags)
    parent, openvino, ncnn = made.report.artifacts
    assert (parent.nms_free, openvino.nms_free, ncnn.nms_free) == (True, True, False)
    assert any("ncnn cannot hold the head that needs no NMS" in note for note in made.notes)
    # Each is held against the parent of its own head.
    assert openvino.parent_sha256 == parent.sha256 != ncnn.parent_sha256
    x = np.random.default_rng(3).random((1, 3, 64, 64), dtype=np.float32)
    assert open_engine(Path(parent.path), parent, 1).infer(x).shape[2] == 6


@pytest.mark.parametrize(
    ("spec", "says"),
    [("model.onnx", "exported model"), ("absent.pt", "do not exist"), ("absent", "is no run")],
)
def test_what_is_not_weights(spec, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=says):
        compress.export(spec)


def test_int8_without_data(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="calibrate"):
        compress.export(str(given / "weights.pt"), int8=True, targets=["x86-cpu"])
    assert not list(tmp_path.iterdir())


def test_truncated_weights(given, tmp_path):
    cut = tmp_path / "cut.pt"
    cut.write_bytes((given / "weights.pt").read_bytes()[:5000])
    with pytest.raises(UsageError, match="cannot be read"):
        compress.export(str(cut), targets=["x86-cpu"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_place(run_export, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(MusgdError, match="cannot write"):
        run_export(tmp_path / "out", targets=["x86-cpu"])


def test_bare_weights_do_not_mix_with_a_run_of_their_name(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "weights").mkdir(parents=True)
    (tmp_path / "runs" / "weights" / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match="would mix") as caught:
        compress.export(str(given / "weights.pt"))
    assert "--out" in caught.value.mend


def test_a_missing_tool_is_skipped_and_the_others_are_made(run_export, tmp_path, monkeypatch):
    monkeypatch.setitem(openvino_format.NEEDS, "int8", ("openvino", "no_such_module"))
    flags = {"compress.precisions": ("fp32",)}
    made = run_export(tmp_path, targets=["x86-cpu"], int8=True, flags=flags)
    assert [(a.runtime, a.precision) for a in made.report.artifacts] == [
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("onnxruntime", "int8"),
    ]
    (skipped,) = made.report.skipped
    assert "no_such_module" in skipped.why
    assert "quantize" in skipped.mend


@pytest.mark.parametrize("option", ["auto_mixed", "quantize_all"])
def test_what_is_about_int8_needs_int8(run_export, tmp_path, option):
    with pytest.raises(UsageError, match=option.replace("_", "-")):
        run_export(tmp_path, targets=["x86-cpu"], **{option: True})


def test_maxwell_gets_no_int8_however_one_insists(run_export, tmp_path):
    flags = {"compress.int8": True}
    made = run_export(tmp_path, targets=["jetson-nano"], int8=True, flags=flags)
    assert [a.precision for a in made.report.artifacts] == ["fp32", "fp16"]
    (row,) = made.report.skipped
    assert "Maxwell" in row.why


def test_the_environment_beats_what_a_run_inherited(given, tmp_path, monkeypatch):
    from musgd_cli.compress import selection
    from musgd_cli.hardware import detect
    from musgd_cli.settings import settle

    flags = {"train.imgsz": 64, "train.data": "mine.yaml"}
    plan = settle(host=detect(), target="pi4b", flags=flags, environ={})
    source = selection.Source(given / "weights.pt", tmp_path, plan)
    monkeypatch.chdir(tmp_path)
    (order,) = selection.place_orders(source, [], {})
    assert (order.target, order.imgsz, order.settings.calib) == ("pi4b", 64, 300)
    assert order.head_source == "profile pi4b"
    monkeypatch.setenv("MUSGD_COMPRESS__CALIB", "7")
    (tmp_path / "musgd.toml").write_text("[compress]\ncalib = 9\nmax_drop = 0.4\n")
    (order,) = selection.place_orders(source, [], {})
    assert (order.settings.calib, order.settings.max_drop) == (7, 0.4)
    (order,) = selection.place_orders(source, [], {"compress.calib": 5})
    assert order.settings.calib == 5


def test_two_profiles_of_one_name_are_refused(given, tmp_path):
    from musgd_cli import profiles
    from musgd_cli.compress import selection

    paths = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        paths.append(str(profiles.copy_to("pi4b", tmp_path / folder / "barn.toml")))
    source = selection.Source(given / "weights.pt", tmp_path, None)
    with pytest.raises(UsageError, match="both named barn"):
        selection.place_orders(source, paths, {})


def test_a_full_disk_is_the_one_that_is_named(run_export, tmp_path, monkeypatch):
    copy = shutil.copyfile

    def full(source, target):
        if not target.is_relative_to(tmp_path):
            return copy(source, target)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(MusgdError, match=f"cannot write {tmp_path}"):
        run_export(tmp_path, targets=["x86-cpu"])
    assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]


def test_a_model_that_came_out_in_float_does_not_pass_for_another(
    run_export, tmp_path, monkeypatch
):
    build = openvino_format.build
    monkeypatch.setattr(
        openvino_format, "build", lambda material, folder, _: build(material, folder, "fp32")
    )
    flags = {"compress.runtimes": ("openvino",), "compress.precisions": ("fp32",)}
    made = run_export(tmp_path, targets=["x86-cpu"], int8=True, flags=flags)
    assert [a.precision for a in made.report.artifacts] == ["fp32", "fp32"]
    (failure,) = made.report.skipped
    assert "int8 model came out as fp32" in failure.why


def test_a_copied_profile_is_for_the_same_boards(given, tmp_path):
    """What TensorRT a board has goes by the board, whatever its profile is called."""
    from musgd_cli import profiles
    from musgd_cli.compress import selection, tensorrt

    barn = str(profiles.copy_to("jetson-nano", tmp_path / "barn.toml"))
    source = selection.Source(given / "weights.pt", tmp_path, None)
    (order,) = selection.place_orders(source, [barn], {})
    assert order.target == "barn"
    assert tensorrt.old_version(order.boards) == "8.2"
