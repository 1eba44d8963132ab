"""Every recorded board is told for what it is, by files alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.errors import UsageError
from musgd_cli.hardware import boards, detect
from musgd_cli.records import Host

BOARDS = Path(__file__).parents[1] / "boards"
BOOKWORM = "Debian GNU/Linux 12 (bookworm)"
ASIMD = ("asimd",)
V82 = ("asimd", "fp16", "dotprod")
TEGRA_X1 = "NVIDIA Tegra X1 (Maxwell, sm_53)"


def arm(board: str, **facts: Any) -> Host:
    return Host.model_validate(
        {
            "board": board,
            "cores": 4,
            "os": BOOKWORM,
            "arch": "aarch64",
            "bits": 64,
            "cpu_features": ASIMD,
            "container": "none",
            "emulated": False,
            "decided_by": "device-tree compatible",
            **facts,
        }
    )


def pi(board: str, model: str, **facts: Any) -> Host:
    kernel = {"kernel": "6.6.51+rpt-rpi-v8", "cpu": "Cortex-A72", "ram_mb": 3793}
    return arm(board, **{"model": model, **kernel, **facts})


def pi4b(**facts: Any) -> Host:
    return pi("pi4b", "Raspberry Pi 4 Model B Rev 1.5", **{"python": "3.11", **facts})


def nano(board: str, model: str | None, **facts: Any) -> Host:
    jetpack = {
        "os": "Ubuntu 18.04.6 LTS",
        "kernel": "4.9.337-tegra",
        "cpu": "Cortex-A57",
        "gpu": TEGRA_X1,
        "ram_mb": 3964,
        "python": "3.6",
        "runtimes": {"tensorrt": "8.2.1"},
        "jetpack": "4.6.4",
    }
    return arm(board, **{"model": model, **jetpack, **facts})


def x86(board: str, **facts: Any) -> Host:
    return Host.model_validate(
        {
            "board": board,
            "arch": "x86_64",
            "bits": 64,
            "container": "none",
            "emulated": False,
            "decided_by": "processor",
            **facts,
        }
    )


EXPECTED = {
    "pi4b": pi4b(),
    "pi4b-ina219": pi4b(power_meters=("ina219:hwmon2",)),
    "pi4b-docker": pi4b(container="docker", decided_by="Raspberry Pi revision code"),
    "pi4b-docker-bind": pi4b(container="docker"),
    "pi4b-32bit": pi4b(os="Raspbian GNU/Linux 12 (bookworm)", bits=32),
    "pi400": pi("pi400", "Raspberry Pi 400 Rev 1.1"),
    "cm4": pi("cm4", "Raspberry Pi Compute Module 4 Rev 1.1", ram_mb=7944),
    "pi5": pi(
        "pi5",
        "Raspberry Pi 5 Model B Rev 1.0",
        cpu="Cortex-A76",
        cpu_features=V82,
        kernel="6.1.47-v8_16k+",
        ram_mb=8051,
        python="3.11",
        power_meters=("pmic:rails",),
    ),
    "pi3": pi("pi3", "Raspberry Pi 3 Model B Rev 1.2", cpu="Cortex-A53", ram_mb=908),
    "pi-zero2": pi("pi-zero2", "Raspberry Pi Zero 2 W Rev 1.0", cpu="Cortex-A53", ram_mb=424),
    "jetson-nano": nano(
        "jetson-nano", "NVIDIA Jetson Nano Developer Kit", power_meters=("ina3221:POM_5V_IN",)
    ),
    "jetson-nano-2gb": nano("jetson-nano-2gb", "NVIDIA Jetson Nano 2GB Developer Kit", ram_mb=1979),
    "jetson-nano-docker": nano(
        "jetson-nano",
        None,
        container="docker",
        python="3.11",
        decided_by="nv_tegra_release and processor",
    ),
    "jetson-nano-mainline": nano(
        "jetson-nano",
        "NVIDIA Jetson Nano Developer Kit",
        os=BOOKWORM,
        kernel="5.15.11",
        ram_mb=3942,
        python="3.11",
        runtimes={},
        jetpack=None,
    ),
    "jetson-tx1": nano(
        "jetson-tx1",
        "jetson_tx1",
        os="Ubuntu 16.04.7 LTS",
        kernel="4.4.38-tegra",
        ram_mb=4000,
        python="3.5",
        runtimes={},
        jetpack="3.2",
    ),
    "orin-nano": arm(
        "orin-nano",
        model="Orin NX Engineering Reference Developer Kit",
        cpu="Cortex-A78AE",
        cpu_features=V82,
        cores=6,
        ram_mb=3479,
        gpu="NVIDIA Orin (Ampere, sm_87)",
        os="Ubuntu 22.04.5 LTS",
        kernel="5.15.148-tegra",
        python="3.10",
        runtimes={"tensorrt": "10.3.0"},
        power_meters=("ina3221:VDD_IN",),
        jetpack="6.2",
    ),
    "x86-gpu": x86(
        "x86-gpu",
        model="ASUS System Product Name",
        cpu="12th Gen Intel(R) Core(TM) i7-12700",
        cpu_features=("avx2", "vnni"),
        cores=20,
        ram_mb=31821,
        gpu="NVIDIA GeForce RTX 3090",
        os="Ubuntu 24.04.1 LTS",
        kernel="6.8.0-45-generic",
        python="3.12",
        power_meters=("rapl:package-0",),
        decided_by="NVIDIA driver",
    ),
    "x86-cpu": x86(
        "x86-cpu",
        model="Supermicro AS -2125HS-TNR",
        cpu="AMD EPYC",
        cpu_features=("avx2", "avx512", "vnni", "bf16"),
        cores=64,
        ram_mb=257659,
        os=BOOKWORM,
        kernel="6.1.0-25-amd64",
        python="3.11",
        power_meters=("rapl:package-0+package-1",),
    ),
    "wsl": x86(
        "x86-cpu",
        cpu="11th Gen Intel(R) Core(TM) i7-1185G7 @ 3.00GHz",
        cpu_features=("avx2", "avx512", "vnni"),
        cores=8,
        ram_mb=7856,
        os="Ubuntu 22.04.4 LTS",
        kernel="5.15.153.1-microsoft-standard-WSL2",
        container="wsl",
        python="3.10",
    ),
    "generic-arm64": arm(
        "generic-arm64",
        model="Radxa ROCK 5B",
        cpu="Cortex-A55 + Cortex-A76",
        cpu_features=V82,
        cores=8,
        ram_mb=15800,
        kernel="6.1.43-15-rk2312",
        python="3.11",
        decided_by="processor",
    ),
    "emulated-pi4b": arm(
        "pi4b",
        model="Raspberry Pi 4 Model B Rev 1.4",
        cpu="AMD EPYC",
        cpu_features=None,
        ram_mb=24105,
        kernel="6.18.44",
        arch="x86_64",
        container="docker",
        emulated=True,
        python="3.11",
    ),
}


def test_each_recorded_tree_is_expected_and_names_its_source() -> None:
    trees = {folder.name for folder in BOARDS.iterdir()}
    assert trees == set(EXPECTED)
    for name in trees:
        assert (BOARDS / name / "SOURCE").read_text().strip()


@pytest.mark.parametrize("name", EXPECTED)
def test_whole_host_of_each_recorded_tree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # What this process was told is not told of another machine.
    monkeypatch.setenv("MUSGD_BOARD", "pi5")
    monkeypatch.setenv("MUSGD_EMULATED", "1")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert detect(BOARDS / name).model_dump() == EXPECTED[name].model_dump()


def test_an_empty_tree_tells_nothing(tmp_path: Path) -> None:
    assert detect(tmp_path) == Host(board="generic", decided_by="nothing else matched")


OUTSIDE = """
import json, sys
from pathlib import Path
from musgd_cli.hardware import conditions, power, thermal, usable_cores
from musgd_cli.hardware.detection import detect
from musgd_cli.hardware.doctor import examine

touched = []
def hook(event, arguments):
    if event in ("open", "os.listdir", "os.scandir", "ctypes.dlopen"):
        touched.append(str(arguments[0]))

roots = [Path(root) for root in sys.argv[1:]]
sys.addaudithook(hook)
for root in roots:
    host = detect(root)
    examine(host, root)
    power.choose_meter(None, root=root, estimate=True)
    power.why_none(root)
    conditions.look(root)
    thermal.temperature_c(root)
    thermal.throttled(root)
    usable_cores(root)
# glob opens folders by the names of their entries, relative to an open one.
print(json.dumps([path for path in touched if path.startswith("/")]))
"""


def test_a_recorded_tree_is_read_and_nothing_else(tmp_path: Path) -> None:
    escape = tmp_path / "escape"
    (escape / "proc").mkdir(parents=True)
    (escape / "proc/cpuinfo").symlink_to("/proc/cpuinfo")
    (escape / "etc").symlink_to("/etc")
    (escape / "sys").symlink_to("../../../../../../../../sys")
    roots = [escape, *sorted(BOARDS.iterdir())]
    command = [sys.executable, "-c", OUTSIDE, *map(str, roots)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    touched = json.loads(done.stdout)
    assert len(touched) > 100
    inside = tuple(f"{root}{os.sep}" for root in roots)
    # The interpreter may load a last module of its own.
    own = (sys.prefix, sys.base_prefix)
    assert [path for path in touched if not path.startswith((*inside, *own))] == []


def copied(name: str, tmp_path: Path) -> Path:
    tree = tmp_path / name
    shutil.copytree(BOARDS / name, tree, symlinks=True)
    return tree


@pytest.mark.parametrize("place", ["proc/device-tree", "host/firmware/devicetree/base"])
def test_device_tree_is_found_in_each_of_its_places(place: str, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / place / "compatible").write_bytes(b"raspberrypi,400\0brcm,bcm2711\0")
    assert detect(tmp_path).board == "pi400"


def test_an_absolute_link_is_followed_within_the_tree(tmp_path: Path) -> None:
    base = tmp_path / "sys/firmware/devicetree/base"
    base.mkdir(parents=True)
    (base / "compatible").write_bytes(b"raspberrypi,5-model-b\0brcm,bcm2712\0")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    assert detect(tmp_path).board == "pi5"


@pytest.mark.parametrize(
    ("compatible", "board"),
    [
        ("nvidia,p3768-0000+p3767-0005-super\0nvidia,tegra234\0", "orin-nano"),
        ("nvidia,p3509-0000+p3767-0003\0nvidia,tegra234\0", "orin-nano"),
        ("nvidia,p3768-0000+p3767-0001\0nvidia,tegra234\0", "orin-nx"),
        ("nvidia,p3737-0000+p3701-0005\0nvidia,tegra234\0", "agx-orin"),
        # A Xavier NX on the Nano's carrier, p3449.
        ("nvidia,p3449-0000+p3668-0001\0nvidia,tegra194\0", "jetson-xavier-nx"),
        ("nvidia,p3449-0000-b00+p3448-0002-b00\0nvidia,tegra210\0", "jetson-nano"),
        ("nvidia,p2371-2180\0nvidia,tegra210\0", "jetson-tx1"),
        ("raspberrypi,4-compute-module-s\0brcm,bcm2711\0", "cm4"),
        # Neither the chip nor part of a token names a board.
        ("nvidia,tegra210\0", "generic"),
        ("brcm,bcm2711\0", "generic"),
        ("acme,raspberrypi,4-model-b\0", "generic"),
        ("raspberrypi,4-model-b-clone\0", "generic"),
    ],
)
def test_compatible_tokens_count_whole(compatible: str, board: str, tmp_path: Path) -> None:
    base = tmp_path / "proc/device-tree"
    base.mkdir(parents=True)
    (base / "compatible").write_text(compatible)
    (base / "model").write_text("NVIDIA Jetson Nano Raspberry Pi 4 Model B\0")
    assert detect(tmp_path).board == board


@pytest.mark.parametrize(
    ("spec", "board"),
    [
        ("3448-300---1-0-jetson-nano-qspi-sd-mmcblk0p1", "jetson-nano"),
        ("3448-0002-300-A.0-1-0-jetson-nano-", "jetson-nano"),
        ("3448-300-0003--1-0-jetson-nano-2gb-devkit-mmcblk0p1", "jetson-nano-2gb"),
        ("2180-100---1-0-jetson-tx1-mmcblk0p1", "jetson-tx1"),
        ("3767-300-0005-R.1-1-1-jetson-orin-nano-devkit-", "orin-nano"),
        ("3767-000-0000-B.2-1-1-p3509-a02-p3767-0000-", "orin-nx"),
    ],
)
def test_tnspec_tells_a_jetson_without_its_device_tree(
    spec: str, board: str, tmp_path: Path
) -> None:
    tree = copied("jetson-nano-docker", tmp_path)
    (tree / "etc/nv_boot_control.conf").write_text(f"TNSPEC {spec}\nTEGRA_CHIPID 0x21\n")
    host = detect(tree)
    assert (host.board, host.decided_by) == (board, "TNSPEC of nv_boot_control.conf")


def test_the_small_nano_is_told_by_its_memory(tmp_path: Path) -> None:
    tree = copied("jetson-nano-docker", tmp_path)
    shutil.copy(BOARDS / "jetson-nano-2gb/proc/meminfo", tree / "proc/meminfo")
    assert detect(tree).board == "jetson-nano-2gb"


def test_cpuinfo_alone_tells_a_64_bit_kernel(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    shutil.copy(BOARDS / "jetson-nano/proc/cpuinfo", tmp_path / "proc/cpuinfo")
    host = detect(tmp_path)
    assert (host.board, host.arch, host.bits) == ("generic-arm64", "aarch64", None)


def test_a_tx1_without_device_tree_is_not_taken_for_a_nano(tmp_path: Path) -> None:
    tree = copied("jetson-tx1", tmp_path)
    (tree / "proc/device-tree").unlink()
    shutil.rmtree(tree / "sys/firmware")
    assert detect(tree).board == "generic-arm64"


def test_musgd_board_goes_before_every_other_rule() -> None:
    host = detect(BOARDS / "pi4b", {"MUSGD_BOARD": "jetson-nano-2gb"})
    assert (host.board, host.decided_by) == ("jetson-nano-2gb", "MUSGD_BOARD")
    assert host.cpu == "Cortex-A72"


def test_a_misspelt_musgd_board_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        detect(BOARDS / "pi4b", {"MUSGD_BOARD": "pi4"})
    assert "MUSGD_BOARD=pi4 " in caught.value.what
    assert "did you mean pi4b?" in caught.value.what
    assert all(name in caught.value.mend for name in boards.names())


def test_the_revision_code_gives_the_memory_that_meminfo_does_not(tmp_path: Path) -> None:
    tree = copied("pi5", tmp_path)
    (tree / "proc/meminfo").unlink()
    assert detect(tree).ram_mb == 8192


@pytest.mark.parametrize(
    ("mark", "content", "kind"),
    [
        ("run/.containerenv", "", "podman"),
        ("run/systemd/container", "lxc\n", "lxc"),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1/2\n", "kubernetes"),
        ("proc/1/cgroup", "0::/system.slice/docker-3f.scope\n", "docker"),
        ("proc/1/cgroup", "0::/machine.slice/libpod-3f.scope\n", "podman"),
        ("proc/1/cgroup", "0::/lxc/box\n", "lxc"),
        ("proc/1/cgroup", "0::/init.scope\n", "none"),
    ],
)
def test_containers(mark: str, content: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / mark).parent.mkdir(parents=True)
    (tmp_path / mark).write_text(content)
    assert detect(tmp_path).container == kind


@pytest.mark.parametrize(
    ("variables", "kind"),
    [({"container": "podman"}, "podman"), ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "kubernetes")],
)
def test_containers_that_a_variable_tells(
    variables: dict[str, str], kind: str, tmp_path: Path
) -> None:
    assert detect(tmp_path, variables).container == kind


def test_emulation_where_qemu_shows_an_arm_cpuinfo(tmp_path: Path) -> None:
    tree = copied("pi4b", tmp_path)
    alias = tree / "sys/devices/system/cpu/modalias"
    alias.write_text("cpu:type:x86,ven0002fam0019mod0011:feature:,0000\n")
    assert detect(tree).emulated is True
    alias.write_text("cpu:type:aarch64:feature:,0000,0001\n")
    assert detect(tree).emulated is False
    assert detect(tree, {"MUSGD_EMULATED": "1"}).emulated is True


def processes(tree: Path, *chain: tuple[str, str | None]) -> None:
    """Add a process and its parents to a tree: of each its name, and its program if one may ask.

    The figures of stat are those of any process; only the second to fourth field count.
    """
    proc = tree / "proc"
    (proc / "self").symlink_to("900")
    for i, (name, program) in enumerate(chain):
        pid, parent = 900 - i, 899 - i if i + 1 < len(chain) else 0
        (proc / f"{pid}").mkdir()
        (proc / f"{pid}/stat").write_text(f"{pid} ({name}) S {parent} {pid} {pid} 0 -1 4194560\n")
        thread = proc / f"{pid}/task/{pid}"
        thread.mkdir(parents=True)
        # QEMU answers for /proc/self/exe itself: with the guest's program.
        for place, target in (
            (proc / f"{pid}/exe", "/usr/bin/python3.11" if i == 0 else program),
            (thread / "exe", program),
        ):
            if target is not None:
                place.symlink_to(target)


STATIC = "/usr/bin/qemu-aarch64-static"
BASH = ("bash", "/usr/bin/bash")


@pytest.mark.parametrize(
    ("chain", "emulated"),
    [
        # Seen under Debian's QEMU 7.2, by the kernel's binfmt_misc and called by name.
        ([("python3", STATIC), ("sh", STATIC), BASH], True),
        ([("qemu-aarch64-st", STATIC), BASH], True),
        ([("python3", "/usr/local/bin/buildkit-qemu-aarch64"), BASH], True),
        # Another user's process: /proc shows its name, but not its program.
        ([("python3", None), ("qemu-aarch64-st", None), BASH], True),
        ([("python3", None), ("a) (b", None), ("sh", STATIC), BASH], True),
        ([("python3", None), BASH], False),
        ([("python3", "/usr/bin/python3.11"), BASH], False),
        # A native program started by an emulated one, and a board that is a host of guests.
        ([("python3", "/usr/bin/python3.11"), ("sh", STATIC)], False),
        ([("python3", None), ("qemu-system-aar", "/usr/bin/qemu-system-aarch64")], False),
    ],
)
def test_qemu_tells_emulation_where_recorded_files_hide_the_host(
    chain: list[tuple[str, str | None]], emulated: bool, tmp_path: Path
) -> None:
    tree = copied("pi4b", tmp_path)
    processes(tree, *chain)
    host = detect(tree)
    assert (host.board, host.emulated) == ("pi4b", emulated)
    assert host.cpu_features == (None if emulated else ("asimd",))


def test_a_ring_of_parents_ends(tmp_path: Path) -> None:
    tree = copied("pi4b", tmp_path)
    processes(tree, ("python3", None))
    (tree / "proc/900/stat").write_text("900 (python3) S 900 900\n")
    assert detect(tree).emulated is False


def test_this_machine() -> None:
    host = detect()
    assert host.board in boards.names()
    assert host.cores is not None and host.cores >= 1
    assert host.ram_mb is not None and host.ram_mb > 100
    assert host.arch == os.uname().machine
    assert host.bits == (64 if sys.maxsize > 2**32 else 32)
    assert host.python == ".".join(map(str, sys.version_info[:3]))
    assert host.runtimes["onnx"] is None or host.runtimes["onnx"][0].isdigit()


def test_this_machine_obeys_musgd_board(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSGD_BOARD", "pi-zero2")
    assert detect().board == "pi-zero2"
