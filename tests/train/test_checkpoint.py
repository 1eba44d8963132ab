"""Each exploit here works where the door is open, and does not where it is ours."""

from __future__ import annotations

import os
import shutil
import zipfile
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from musgd_cli.errors import ExitCode, UsageError
from musgd_cli.train.checkpoint import load_weights, read_model_config, write_weights


def detection_model(config: dict | str, n_classes: int = 2) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    return DetectionModel(config, nc=n_classes, verbose=False)


def is_detection_model(model: object) -> bool:
    from ultralytics.nn.tasks import DetectionModel

    return type(model) is DetectionModel


class Exploit:
    """Runs ``call(*arguments)`` when it is unpickled."""

    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> nn.Module:
    return detection_model(read_model_config(str(tiny_model)))


@pytest.fixture
def weights(model: nn.Module, tmp_path: Path) -> Path:
    file = tmp_path / "start.pt"
    write_weights(file, model, {"train_args": {"imgsz": 64}})
    return file


def refused(path: Path | str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        load_weights(path)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value


def save_with_model(file: Path, model: nn.Module, **more: object) -> None:
    torch.save({"model": model, "ema": None, **more}, file)


# ------------------------------------------------------------------------------- what gets through


def test_weights_come_back_as_they_were_stored(model, weights):
    loaded = load_weights(weights)
    assert is_detection_model(loaded)
    assert loaded.training
    assert all(p.requires_grad and p.dtype is torch.float32 for p in loaded.parameters())
    for name, value in model.state_dict().items():
        stored = value.half().float() if value.is_floating_point() else value
        assert torch.equal(loaded.state_dict()[name], stored)


def test_ultralytics_reads_what_we_write(model, weights):
    from ultralytics.nn.tasks import load_checkpoint

    theirs, checkpoint = load_checkpoint(weights)
    assert theirs.names == model.names
    assert checkpoint["epoch"] == -1
    assert checkpoint["train_args"] == {"imgsz": 64}
    assert theirs(torch.zeros(1, 3, 64, 64))[0].shape[1] == 4 + 2


def test_the_average_is_preferred_to_the_model(model, tmp_path):
    average = detection_model(model.yaml)
    torch.save({"model": model, "ema": average}, tmp_path / "both.pt")
    loaded = load_weights(tmp_path / "both.pt").state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in average.state_dict().items())


def test_plain_values_of_older_checkpoints_get_through(model, tmp_path):
    from ultralytics.utils import IterableSimpleNamespace

    file = tmp_path / "old.pt"
    arguments = IterableSimpleNamespace(project=Path("runs"), lr0=0.01)
    save_with_model(file, model, best_fitness=np.float64(0.5), train_args=arguments)
    assert is_detection_model(load_weights(file))


def test_a_model_with_its_loss_gets_through(tiny_model, tmp_path):
    from ultralytics.cfg import get_cfg

    model = detection_model(read_model_config(str(tiny_model)))
    model.args = get_cfg()
    model.criterion = model.init_criterion()
    save_with_model(tmp_path / "loss.pt", model)
    assert is_detection_model(load_weights(tmp_path / "loss.pt"))


def test_the_shared_coco_weights_need_no_trust(shared):
    loaded = load_weights(shared / "models" / "yolo26n-coco.pt")
    assert len(loaded.names) == 80


# -------------------------------------------------------------------------------- what does not


@pytest.mark.parametrize("as_global", ["os.system", "builtins.eval", "builtins.exec"])
def test_a_pickle_that_runs_code_is_refused_and_says_what_it_asked_for(model, tmp_path, as_global):
    mark, file = tmp_path / "ran", tmp_path / "evil.pt"
    call, argument = {
        "os.system": (os.system, f"touch {mark}"),
        "builtins.eval": (eval, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
        "builtins.exec": (exec, f"__import__('pathlib').Path({str(mark)!r}).touch()"),
    }[as_global]
    save_with_model(file, model, note=Exploit(call, argument))

    error = refused(file)
    assert not mark.exists()
    assert as_global.rpartition(".")[2] in error.what
    assert "--trust" in error.mend

    load_weights(file, trust=True)
    assert mark.exists()  # the exploit works: this is what was refused


@pytest.mark.parametrize(
    "name",
    [
        "ultralytics.utils.checks.check_requirements",  # installs a package
        "ultralytics.nn.tasks.yaml_model_load",  # in an allowed module, but no layer
        "torch.hub.load",
        "torch.nn.modules.module.torch",  # an allowed module's import of everything
        "builtins.getattr",
    ],
)
def test_no_function_gets_through_however_it_is_named(tmp_path, name):
    import importlib

    module, _, attribute = name.rpartition(".")
    call = getattr(importlib.import_module(module), attribute)
    file = tmp_path / "evil.pt"
    if callable(call):
        torch.save({"model": Exploit(call, "x")}, file)
    else:
        write_pickle(file, f"c{module}\n{attribute}\n.".encode())
    assert "not loaded" in refused(file).what


def write_pickle(file: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def test_an_opcode_the_scan_does_not_know_is_refused(tmp_path):
    mark, file = tmp_path / "ran", tmp_path / "evil.pt"
    # INST of protocol 0: instantiates without naming its global in the usual way.
    write_pickle(file, f"(S'touch {mark}'\nios\nsystem\n.".encode())
    refused(file)
    assert not mark.exists()


def test_an_activation_inside_weights_is_never_evaluated(model, tmp_path, monkeypatch):
    mark, file = tmp_path / "ran", tmp_path / "evil.pt"
    evil = detection_model(model.yaml)
    evil.yaml = {
        **evil.yaml,
        "activation": f"__import__('pathlib').Path({str(mark)!r}).touch() or nn.SiLU()",
    }
    save_with_model(file, evil)

    assert "activation" in refused(file).what
    assert not mark.exists()

    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "SAFE_LOAD", False)
    tasks.parse_model(deepcopy(evil.yaml), ch=3, verbose=False)
    assert mark.exists()  # what a rebuild from this YAML would have run


def test_a_missing_file_is_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused("yolo26n.pt")
    assert "nothing is downloaded" in error.what
    assert list(tmp_path.iterdir()) == []


def test_damage_is_told_from_danger(weights, tmp_path):
    whole = weights.read_bytes()
    for name, content in {
        "half.pt": whole[: len(whole) // 2],
        "empty.pt": b"",
        "text.pt": b"not a checkpoint",
    }.items():
        file = tmp_path / name
        file.write_bytes(content)
        error = refused(file)
        assert name in error.what
        assert "--trust" not in error.mend
    assert "directory" in refused(tmp_path).what


def test_damage_inside_a_whole_archive_is_told(weights, tmp_path):
    file = tmp_path / "damaged.pt"
    with zipfile.ZipFile(weights) as source, zipfile.ZipFile(file, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            target.writestr(entry, content[:200] if entry.endswith("data.pkl") else content)
    assert "damaged.pt" in refused(file).what


def test_what_is_no_detection_model_is_named(model, tmp_path):
    from ultralytics.nn.tasks import SegmentationModel

    segment = tmp_path / "segment.pt"
    save_with_model(segment, SegmentationModel("yolo26n-seg.yaml", nc=2, verbose=False))
    assert "SegmentationModel" in refused(segment).what

    other = tmp_path / "other.pt"
    save_with_model(other, nn.Linear(2, 2))
    assert "Linear" in refused(other).what

    bare = tmp_path / "bare.pt"
    torch.save(model.state_dict(), bare)
    assert "holds no model" in refused(bare).what

    script = tmp_path / "script.pt"  # as torch.jit.save lays it out
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("script/data.pkl", b"")
        archive.writestr("script/constants.pkl", b"")
    assert "TorchScript" in refused(script).what

    fused = tmp_path / "fused.pt"
    save_with_model(fused, detection_model(model.yaml).eval().fuse(verbose=False))
    assert "fused" in refused(fused).what


def test_nothing_is_written_beside_weights(weights, tmp_path, fingerprint):
    given = tmp_path / "given"
    given.mkdir()
    shutil.copy(weights, given)
    before = fingerprint(given)
    load_weights(given / weights.name)
    assert fingerprint(given) == before


# --------------------------------------------------------------------------------------- model YAML


def test_a_shipped_model_is_found_by_its_scale(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nano, small = read_model_config("yolo26n.yaml"), read_model_config("yolo26s.yaml")
    assert (nano["scale"], small["scale"]) == ("n", "s")
    model = detection_model(nano, 80)
    assert sum(p.numel() for p in model.parameters()) == 2_572_280  # notes/optimizer.md


def test_a_file_comes_before_a_shipped_model_of_the_same_name(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_model, tmp_path / "yolo26n.yaml")
    assert len(read_model_config("yolo26n.yaml")["backbone"]) == 5


def test_an_activation_in_a_yaml_is_never_evaluated(tiny_model, tmp_path, monkeypatch):
    mark, file = tmp_path / "ran", tmp_path / "evil.yaml"
    payload = f"__import__('pathlib').Path({str(mark)!r}).touch() or nn.SiLU()"
    file.write_text(tiny_model.read_text() + f'activation: "{payload}"\n')

    with pytest.raises(UsageError, match="never evaluated"):
        read_model_config(str(file))
    assert not mark.exists()

    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "SAFE_LOAD", False)
    detection_model(str(file))
    assert mark.exists()  # what Ultralytics itself does with it


def test_a_known_activation_is_used(tiny_model, tmp_path):
    file = tmp_path / "relu.yaml"
    file.write_text(tiny_model.read_text() + "activation: nn.ReLU()\n")
    model = detection_model(read_model_config(str(file)))
    assert isinstance(model.model[0].act, nn.ReLU)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("nc: 2\n", "it needs nc"),
        ("- just\n- a list\n", "it needs nc"),
        ("nc: [", "cannot be read"),
        ("nc: !!python/object/apply:os.system ['touch ran']\n", "cannot be read"),
        ("nc: 2\nbackbone: []\nhead: [[-1, 1, Segment, [nc]]]\n", "does not end in Detect"),
    ],
)
def test_a_yaml_that_is_no_detection_model_is_refused(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(UsageError, match=says):
        read_model_config("model.yaml")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_name_is_refused():
    with pytest.raises(UsageError, match="does not exist"):
        read_model_config("yolo99n.yaml")
