"""OpenVINO's models: what NNCF was told, and bf16 where the CPU has it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from musgd_cli.compress import openvino
from musgd_cli.hardware.cpu import computes_bf16


def built(material, folder: Path, precision: str = "int8") -> bytes:
    openvino.build(material, folder, precision)
    return (folder / "model.xml").read_bytes()


@pytest.fixture(scope="module")
def int8_model(material, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("openvino")
    assert openvino.build(material, folder, "int8") == "minmax"
    return folder


def test_the_head_is_int8_up_to_its_last_convolutions(int8_model):
    found = openvino.read_back(int8_model)
    assert found.precision == "int8"
    assert len(found.int8_layers) + len(found.float_layers) == 102
    last = {
        f"/model.23/cv{branch}.{scale}/cv{branch}.{scale}.2/Conv"
        for branch in (2, 3)
        for scale in range(3)
    }
    assert last < set(found.float_layers)
    # Depthwise ones, whose weights NNCF leaves as they are, and OpenVINO then runs in float.
    others = [name for name in found.float_layers if name not in last]
    assert len(others) == 8
    assert all("/pe/" in name or name.endswith(".0/conv/Conv") for name in others)


def test_layers_return_to_float(material, tmp_path):
    kept = frozenset({"/model.0/conv/Conv", "/model.1/conv/Conv"})
    built(replace(material, keep_float=kept), tmp_path)
    assert kept < set(openvino.read_back(tmp_path).float_layers)


def test_every_operation_where_that_is_asked_for(material, tmp_path):
    everything = built(replace(material, quantize_all=True), tmp_path)
    assert everything.count(b'type="FakeQuantize"') > 250  # 100 and some where SiLU stays float
    assert len(openvino.read_back(tmp_path).float_layers) == 8


@pytest.mark.parametrize(("asked", "used"), [("percentile", "percentile"), ("entropy", "minmax")])
def test_the_method_is_the_one_that_was_used(asked, used, material, int8_model, tmp_path):
    """NNCF has no entropy."""
    assert openvino.build(replace(material, method=asked), tmp_path, "int8") == used
    same = (tmp_path / "model.bin").read_bytes() == (int8_model / "model.bin").read_bytes()
    assert same == (used == "minmax")


def test_bf16_is_read_from_the_graph_that_runs(material, tmp_path):
    if (lacking := openvino.lacks("bf16", ("x86-cpu",))) is not None:
        pytest.skip(lacking[0])
    built(material, tmp_path, "bf16")
    assert openvino.read_back(tmp_path).precision == "bf16"
    built(material, tmp_path, "fp32")
    assert openvino.read_back(tmp_path).precision == "fp32"


def test_bf16_is_skipped_where_the_cpu_lacks_it(monkeypatch):
    monkeypatch.setattr("musgd_cli.hardware.cpu.computes_bf16", lambda: False)
    what, mend = openvino.lacks("bf16", ("x86-cpu",))
    assert "avx512_bf16" in what
    assert "fp32" in mend
    assert openvino.lacks("int8", ("x86-cpu",)) is None


@pytest.mark.parametrize(
    ("board", "has"), [("x86-cpu", True), ("x86-gpu", False), ("wsl", False), ("pi5", False)]
)
def test_which_cpus_have_bf16(board, has, repository):
    assert computes_bf16(repository / "tests" / "boards" / board) == has
