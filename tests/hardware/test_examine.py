"""The doctor's checks: each fails where it should, and only there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.hardware import detect
from musgd_cli.hardware.doctor import examine
from musgd_cli.installation import how_to_add, pip
from musgd_cli.records import Check, Host

BOARDS = Path(__file__).parents[1] / "boards"
Copied = Callable[[str], Path]
FINE: dict[str, Any] = {
    "board": "x86-cpu",
    "arch": "x86_64",
    "bits": 64,
    "cores": 1,
    "ram_mb": 16000,
    "container": "none",
    "emulated": False,
    "power_meters": ("rapl:package-0",),
    "runtimes": {
        "torch": "2.14.1",
        "ultralytics": "8.4.190",
        "onnxruntime": "1.32.0",
        "openvino": "2026.4.1",
        "opencv": "5.0.0.93",
    },
}
PI: dict[str, Any] = {
    "board": "pi4b",
    "arch": "aarch64",
    "cpu": "Cortex-A72",
    "runtimes": {"ncnn": "1.0", "onnxruntime": "1.32.0", "opencv": "5.0.0.93"},
}


def failures(host: Host, root: Path = Path("/")) -> dict[str, Check]:
    return {check.name: check for check in examine(host, root) if not check.ok}


def of_tree(tree: Path) -> dict[str, Check]:
    return failures(detect(tree), tree)


def live(**facts: Any) -> dict[str, Check]:
    return failures(Host.model_validate({**FINE, **facts}))


# name of the tree to what fails there, and whether that is in the way of its main job
ON_RECORD: dict[str, dict[str, bool]] = {
    "pi4b": {"power meter": False},
    "pi4b-ina219": {"clocks": False},
    "pi4b-docker": {"power meter": False},
    "pi4b-docker-bind": {"power meter": False},
    "pi4b-32bit": {"userland": True, "power meter": False},
    "pi400": {"power meter": False},
    "cm4": {"power meter": False},
    "pi5": {},
    "pi3": {"power meter": False},
    "pi-zero2": {"memory": False, "power meter": False},
    "jetson-nano": {"python": False},
    "jetson-nano-2gb": {"power meter": False, "python": False},
    "jetson-nano-docker": {"power meter": False},
    "jetson-nano-mainline": {"jetpack": True, "power meter": False},
    "jetson-tx1": {"power meter": False, "python": False},
    "orin-nano": {"python": False},
    "x86-gpu": {},
    "x86-cpu": {},
    "wsl": {"power meter": False, "python": False},
    "generic-arm64": {"power meter": False},
    "emulated-pi4b": {"processor": False, "power meter": False},
}


@pytest.mark.parametrize("name", ON_RECORD)
def test_each_recorded_machine(name: str) -> None:
    found = of_tree(BOARDS / name)
    assert {check: not found[check].advice for check in found} == ON_RECORD[name]
    assert all(check.mend for check in found.values())


def test_a_mend_comes_with_failures_only() -> None:
    host = detect(BOARDS / "pi4b-32bit")
    checks = examine(host, BOARDS / "pi4b-32bit")
    assert any(check.ok for check in checks)
    assert all((check.mend is None) == check.ok for check in checks)


def test_a_masked_device_tree_tells_how_to_unmask_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(BOARDS / "pi4b-docker", tree, symlinks=True)
    cpuinfo = (tree / "proc/cpuinfo").read_text()
    (tree / "proc/cpuinfo").write_text(cpuinfo.partition("Revision")[0])
    assert detect(tree).board == "generic-arm64"
    check = of_tree(tree)["device tree"]
    assert "-v /sys/firmware:/host/firmware:ro" in (check.mend or "")
    assert "MUSGD_BOARD" in (check.mend or "")


def test_a_counter_only_root_may_read_names_the_udev_rule(as_nobody: Copied) -> None:
    tree = as_nobody("x86-gpu")
    counter = tree / "sys/class/powercap/intel-rapl:0/energy_uj"
    counter.chmod(0)
    check = of_tree(tree)["power meter"]
    assert str(counter) in check.found
    assert "/etc/udev/rules.d/" in (check.mend or "")
    assert "powercap" in (check.mend or "")


def test_a_cards_meter_does_not_hide_that_the_cpus_is_refused(as_nobody: Copied) -> None:
    tree = as_nobody("x86-gpu")
    (tree / "sys/class/powercap/intel-rapl:0/energy_uj").chmod(0)
    host = detect(tree).model_copy(update={"power_meters": ("nvml:energy",)})
    check = failures(host, tree)["power meter"]
    assert check.found.startswith("nvml:energy, rapl:package-0 may not be read")
    assert "powercap" in (check.mend or "")


def test_a_pi5_needs_no_wires_but_the_command(copied: Copied) -> None:
    tree = copied("pi5")
    shutil.rmtree(tree / "answers")
    assert "vcgencmd" in (of_tree(tree)["power meter"].mend or "")


def test_a_card_without_driver_is_seen_on_the_bus(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(BOARDS / "x86-gpu", tree, symlinks=True)
    shutil.rmtree(tree / "proc/driver")
    assert detect(tree).board == "x86-cpu"
    assert of_tree(tree)["gpu driver"].advice


# ----------------------------------------------------------------------- this machine's packages


def test_a_machine_that_has_all() -> None:
    assert live(cores=1).keys() <= {"gpu driver", "disk", "clocks"}


@pytest.mark.parametrize(
    ("lost", "mend"),
    [
        ("openvino", how_to_add("openvino")),
        ("onnxruntime", how_to_add("onnx")),
        ("opencv", pip("install opencv-python-headless")),
    ],
)
def test_a_missing_engine_names_its_extra(lost: str, mend: str) -> None:
    found = live(runtimes={**FINE["runtimes"], lost: None})
    assert found[lost].mend == mend
    assert found[lost].advice


def test_a_pi_is_asked_for_ncnn_and_not_for_torch() -> None:
    found = live(**{**PI, "runtimes": {}})
    assert found["ncnn"].mend == how_to_add("ncnn")
    assert found.keys().isdisjoint({"training", "openvino", "opencv"})


def test_a_workstation_is_asked_for_torch() -> None:
    runtimes = {**FINE["runtimes"], "ultralytics": None}
    assert live(runtimes=runtimes)["training"].mend == how_to_add("train")


@pytest.mark.parametrize(
    ("torch", "cpu", "bad"),
    [
        ("2.10.0", "Cortex-A72", True),
        ("2.14.1", "Cortex-A72", True),
        ("2.10.0+cpu", "Cortex-A53", True),
        ("2.9.1", "Cortex-A72", False),
        ("2.14.1", "Cortex-A76", False),
    ],
)
def test_wheels_that_die_on_an_a72(torch: str, cpu: str, bad: bool) -> None:
    found = live(**{**PI, "cpu": cpu, "runtimes": {**PI["runtimes"], "torch": torch}})
    assert ("torch build" in found) == bad
    if bad:
        assert found["torch build"].mend == pip("install 'torch>=2.6,<2.10' torchvision")
        assert not found["torch build"].advice


@pytest.mark.parametrize(("torch", "bad"), [("2.14.1+cpu", True), ("2.14.1", False)])
def test_a_cpu_wheel_beside_a_card(torch: str, bad: bool) -> None:
    runtimes = {**FINE["runtimes"], "torch": torch}
    found = live(board="x86-gpu", gpu="NVIDIA GeForce RTX 3090", runtimes=runtimes)
    assert ("torch build" in found) == bad
    assert "torch build" not in live(runtimes=runtimes)


@pytest.mark.parametrize(("torch", "bad"), [("2.5.1", True), ("2.6.0", False), ("2.10.0", False)])
def test_torch_that_loads_checkpoints_unsafely(torch: str, bad: bool) -> None:
    found = live(runtimes={**FINE["runtimes"], "torch": torch})
    assert ("training" in found) == bad


def test_fewer_cores_than_the_machine_has() -> None:
    many = (os.cpu_count() or 1) + 1
    assert live(cores=many)["cores"].found.endswith(f"of {many} usable")


def test_a_full_disk_is_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100 * 2**20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    assert not live()["disk"].advice


def test_a_clock_in_the_past(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 86_400.0)
    assert live()["date"].mend == "sudo timedatectl set-ntp true"
