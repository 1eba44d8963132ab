"""The Nano's agent on recorded boards, with a trtexec that plays that of TensorRT 8.2.

What only a board can tell, whether NVIDIA's own program does as its sources say, is not shown here.
"""

from __future__ import annotations

import ast
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import musgd_cli
from musgd_cli.bench.clock import latency
from musgd_cli.bench.interval import prediction_interval
from musgd_cli.board import NANO_AGENT, nano_agent
from musgd_cli.hardware import boards, detect
from musgd_cli.hardware.power import find_meters
from musgd_cli.records import SCHEMA, BenchReport, BenchReports, Gate
from musgd_cli.storage import sha256_of

GATE = Gate(
    verdict="passed",
    max_drop=0.01,
    **dict.fromkeys(
        (
            *("map50_95_drop", "interval", "map50_95", "map50", "recall_small"),
            *("parent_map50_95", "parent_map50", "parent_recall_small"),
            *("match_recall", "match_precision", "box_px", "score_difference"),
            "confidence_shift",
        )
    ),
    n_boxes=0,
    n_images=72,
    data="bccd.yaml",
    split="test",
    scored_by="onnxruntime 1.32.0",
)
BOARDS = Path(__file__).parents[1] / "boards"
JETSONS = (
    "jetson-nano",
    "jetson-nano-2gb",
    "jetson-nano-docker",
    "jetson-nano-mainline",
    "jetson-tx1",
    "orin-nano",
)

RUN_VERMIN = "import vermin; vermin.main()"  # it cannot be run with -m


def interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Do as Ctrl-C does; return the exit code and what was said."""
    process.send_signal(2)
    _, err = process.communicate(timeout=30)
    return process.returncode, err


def refused(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """It ended with that code and two lines that hold those words."""
    error, mend = done.stderr.splitlines()[-2:]
    assert done.returncode == code, done.stderr
    assert error.startswith("error: ")
    assert mend.startswith("mend: ")
    for word in words:
        assert word in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


# ------------------------------------------------------------------------------------ the language


def test_it_is_python_3_6_and_the_standard_library():
    pytest.importorskip("vermin", reason="the dev extra is not installed")
    source = Path(NANO_AGENT).read_text()
    ast.parse(source, feature_version=(3, 6))
    done = subprocess.run(
        [sys.executable, "-c", RUN_VERMIN, "-t=3.6-", "--no-tips", "-q", NANO_AGENT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else name.name).partition(".")[0]
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert modules <= sys.stdlib_module_names


def test_it_is_of_this_musgd():
    assert (musgd_cli.__version__, SCHEMA) == (nano_agent.VERSION, nano_agent.SCHEMA)


# ----------------------------------------------------------------------------------- which board


@pytest.mark.parametrize("board", JETSONS)
def test_doctor_tells_what_musgd_doctor_tells(board):
    done = subprocess.run(
        [sys.executable, "-I", "-S", NANO_AGENT, "doctor", "--json", "--root", BOARDS / board],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == detect(BOARDS / board).model_dump(mode="json")


def test_a_reader_that_has_seen_enough_is_no_failure_to_tell_of():
    reads, writes = os.pipe()
    os.close(reads)
    done = subprocess.run(
        [sys.executable, NANO_AGENT, "doctor", "--root", BOARDS / "jetson-nano"],
        stdout=writes,
        stderr=subprocess.PIPE,
    )
    os.close(writes)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("board", [board for board in boards.BOARDS if board.is_jetson])
def test_every_jetson_is_told_by_its_device_tree_and_by_its_tnspec(board, tmp_path):
    def of(tree: Path) -> tuple[object, object]:
        host = nano_agent.describe(nano_agent.Tree(tree), {})
        assert detect(tree).model_dump(mode="json") == host
        return host["board"], host["gpu"]

    for number, token in enumerate(board.compatible):
        tree = tmp_path / f"compatible{number}"
        (tree / "proc/device-tree").mkdir(parents=True)
        (tree / "proc/device-tree/compatible").write_text(f"{token}\0nvidia,tegra\0")
        assert of(tree) == (board.name, board.gpu)
    for number, module in enumerate(board.modules):
        tree = tmp_path / f"module{number}"
        (tree / "etc").mkdir(parents=True)
        (tree / "etc/nv_tegra_release").write_text("# R32 (release), REVISION: 7.1, GCID: 0\n")
        id_, _, sku = module.partition("-")
        (tree / "etc/nv_boot_control.conf").write_text(f"TNSPEC {id_}-{sku}-300-A.0-1-0-x-\n")
        assert of(tree) == (board.name, board.gpu)


@pytest.mark.parametrize("release", [*nano_agent.JETPACKS, "32.9.9"])
def test_jetpack_is_named_as_musgd_names_it(release, tmp_path):
    major, _, minor = release.partition(".")
    shutil.copytree(BOARDS / "jetson-nano", tmp_path / "nano", symlinks=True)
    line = f"# R{major} (release), REVISION: {minor}, GCID: 0, BOARD: t210ref\n"
    (tmp_path / "nano/etc/nv_tegra_release").write_text(line)
    told = nano_agent.describe(nano_agent.Tree(tmp_path / "nano"), {})
    assert told["jetpack"] == detect(tmp_path / "nano").jetpack


def test_the_environment_names_a_board_for_it_too():
    tree = nano_agent.Tree(BOARDS / "pi4b")
    named = {"MUSGD_BOARD": "jetson-nano", "MUSGD_EMULATED": "1"}
    ours = nano_agent.describe(tree, named)
    theirs = detect(BOARDS / "pi4b", named)
    for field in ("board", "gpu", "decided_by", "emulated", "cpu_features"):
        assert ours[field] == getattr(theirs, field), field
    with pytest.raises(nano_agent.AgentError, match="names no Jetson") as told:
        nano_agent.describe(tree, {"MUSGD_BOARD": "jetson-nanu"})
    assert told.value.code == 2


@pytest.mark.parametrize("board", ["pi4b", "x86-cpu", "wsl"])
def test_another_board_is_refused(nano, board):
    refused(nano.run("doctor", "--root", str(BOARDS / board)), 3, "no Jetson")
    done = nano.run("bench", str(nano.artifact), "--root", str(BOARDS / board))
    refused(done, 3, "no Jetson", "musgd bench")


# -------------------------------------------------------------------------------- a whole bench run


@pytest.fixture(scope="module")
def report(measured) -> BenchReport:
    return BenchReport.parse(measured[0].report())


def test_the_report_is_one_that_musgd_reads(report, measured):
    nano, _, _ = measured
    assert report.host == detect(nano.root)
    assert (report.runtime, report.runtime_version) == ("tensorrt", "8.2.1")
    assert report.host.jetpack == "4.6.4"
    assert (report.precision, report.imgsz, report.names) == ("fp16", 320, ("red", "green"))
    assert (
        report.artifact_sha256
        == json.loads((nano.artifact / "artifact.json").read_text())["sha256"]
    )
    assert report.engine["built_with"] == "--fp16 --workspace=1024"
    assert "not read back" in report.engine["fp16"]  # --fp16 allows it, and no more
    assert report.power_mode == "MAXN"
    assert report.cpu_mhz == report.cpu_mhz_highest == 1479
    assert report.temperature_c == 39.5  # the CPU's: the PMIC's constant 100 is none
    assert report.governor == "schedutil"
    assert report.started.endswith("+00:00")
    assert report.peak_memory_mb > 1


def test_percentiles_are_those_of_all_raw_samples(report):
    assert [repeat.n for repeat in report.repeats] == [len(report.samples_ms) // 3] * 3
    assert report.n == len(report.samples_ms) > 100
    for name, figure in latency(report.samples_ms).model_dump().items():
        assert getattr(report.latency_ms, name) == pytest.approx(figure, rel=1e-12), name
    # Every fiftieth takes half as long again, and the warm-up's ones are not among them.
    assert report.latency_ms.max == pytest.approx(30, abs=1)
    assert report.latency_ms.p50 == pytest.approx(20.12, abs=0.02)
    medians = [repeat.p50_ms for repeat in report.repeats]
    assert report.p50_interval_ms == pytest.approx(
        prediction_interval(report.latency_ms.p50, medians)
    )
    assert report.stable is True
    assert report.fps == pytest.approx(1000 / np.mean(report.samples_ms))


def test_the_warm_up_is_judged_and_not_timed(report):
    assert report.steady is True
    assert 3 * 1.8 / 0.0205 < report.warmup < 3 * 1.8 / 0.0195
    assert [repeat.load_ms for repeat in report.repeats] == pytest.approx([74.2] * 3)
    assert report.first_inference_ms == 20
    assert all(1.0 <= repeat.seconds < 1.1 for repeat in report.repeats)


def test_a_run_that_says_much_is_not_thrown_away(nano):
    """An hour of a Nano is thousands of lines, and when the engine was loaded is the first."""
    nano.how = {"averages": 5000}
    done = nano.bench()
    assert done.returncode == 0, done.stderr
    assert nano.report()["load_ms"] == pytest.approx(74.2)


def test_power_is_that_of_the_timed_window(report, measured):
    _, _, truth = measured
    windows = [json.loads(line) for line in truth.read_text().splitlines()]
    energy_j, seconds = (sum(column) for column in zip(*windows, strict=True))
    assert report.power_w == pytest.approx(energy_j / seconds, rel=0.01)
    assert report.power_s == pytest.approx(seconds, rel=1e-4)
    assert report.energy_per_frame_j == pytest.approx(energy_j / report.n, rel=0.01)
    assert (report.power_source, report.power_scope) == ("ina3221:POM_5V_IN", "module")
    assert report.power_kind == "measured"
    assert 5 < report.power_hz < 11  # 10 are meant; a busy machine takes fewer
    assert report.idle_w == pytest.approx(5.716)  # as recorded, before the replay
    net = report.energy_per_frame_j - 5.716 * seconds / report.n
    assert report.net_energy_per_frame_j == pytest.approx(net, rel=0.01)


def test_what_trtexec_cannot_tell_is_not_told(report):
    assert (report.map50_95, report.map50, report.n_images, report.data) == (None, None, 0, None)
    assert "trtexec" in report.accuracy_note
    assert (report.fps_end_to_end, report.pre_ms, report.post_ms) == (None, None, None)
    assert report.throttled is None  # the recorded tree has no cooling device
    assert report.cores_used is None


def test_moments_follow_the_run(report):
    # Whole seconds of each repeat, with the load and warm-up of the next between them.
    times = [moment.t_s for moment in report.moments]
    assert times == sorted(times)
    assert times[0] == pytest.approx(0.5, abs=0.05)
    assert len(times) == 3
    assert all(moment.fps == pytest.approx(report.fps, rel=0.05) for moment in report.moments)


def test_it_says_how_it_goes_and_what_came_of_it(measured):
    _, said, _ = measured
    for words in (
        "building ",
        "resting for 1.5 s",
        "timing 3/3: 1 s",
        "p50 20.",
        " W of the whole",
    ):
        assert words in said


def test_an_engine_is_kept_for_its_model_version_and_board(measured, tmp_path):
    nano, _, _ = measured
    (engine,) = nano.engines.iterdir()
    assert engine.name.startswith("jetson-nano-trt8.2.1-")
    assert engine.suffix == ".engine"
    assert nano.engines.stat().st_mode & 0o777 == 0o700
    again = nano.bench("--out", str(tmp_path / "again.json"))  # others read the one report
    assert again.returncode == 0
    assert "was built before" in again.stderr
    assert list(nano.engines.iterdir()) == [engine]
    assert {path.name for path in nano.artifact.iterdir()} == {
        *("model.onnx", "artifact.json", "bench")
    }


def test_an_engine_that_came_with_a_model_is_not_loaded(nano):
    assert nano.bench().returncode == 0
    (engine,) = nano.engines.iterdir()
    engine.rename(nano.artifact / engine.name)
    done = nano.bench()
    assert done.returncode == 0, done.stderr
    assert "building " in done.stderr
    files = ("model.onnx", engine.name)
    sha256 = sha256_of([nano.artifact / name for name in files])
    nano.describe(files=files, sha256=sha256)
    refused(nano.bench(), 1, f"holds more than an ONNX and its data: {engine.name}", "musgd export")


def test_other_data_of_the_same_onnx_is_another_engine(nano):
    """An ONNX's graph can be that of another model, where its weights lie in a file beside it."""
    files = ("model.onnx", "model.onnx.data")
    for n, weights in enumerate((b"these", b"those"), 1):
        (nano.artifact / files[1]).write_bytes(weights)
        nano.describe(files=files, sha256=sha256_of([nano.artifact / name for name in files]))
        assert nano.bench().returncode == 0
        assert len(list(nano.engines.iterdir())) == n


def test_engines_that_nobody_uses_are_cleared_by_the_next_build(nano):
    nano.engines.mkdir(parents=True)
    nano.engines.chmod(0o755)
    month_ago = time.time() - 31 * 86400
    for name, used in (("old", month_ago), (".of-a-cut", month_ago), ("new", time.time())):
        (nano.engines / name).touch()
        os.utime(nano.engines / name, (used, month_ago))
    assert nano.bench().returncode == 0
    assert nano.engines.stat().st_mode & 0o777 == 0o700
    (engine,) = (path for path in nano.engines.iterdir() if path.name != "new")
    os.utime(engine, (month_ago, month_ago))
    assert nano.bench().returncode == 0
    assert engine.stat().st_atime > month_ago + 86400
    assert engine.stat().st_mtime == pytest.approx(month_ago)  # when it was built


def test_without_a_folder_for_engines_it_says_where_there_could_be_one(nano, monkeypatch, capsys):
    file = nano.root / "file"
    file.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(file))
    assert nano_agent.main(["bench", str(nano.artifact), "--root", str(nano.root)]) == 1
    assert "mend: set XDG_CACHE_HOME to a folder" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------- power


def test_a_board_without_a_sensor_gives_no_figure_of_power(nano_of):
    nano = nano_of("jetson-nano-2gb")
    done = nano.bench("--json", "--out", str(nano.root / "report.json"))
    assert done.returncode == 0, done.stderr
    (report,) = BenchReports.parse(json.loads(done.stdout)).reports
    assert report == BenchReport.parse(json.loads((nano.root / "report.json").read_text()))
    assert (report.power_w, report.energy_per_frame_j, report.power_source) == (None, None, None)
    assert report.power_note == "no meter on this board"
    assert report.host.board == "jetson-nano-2gb"
    assert report.engine["built_with"] == "--fp16 --workspace=512"
    assert "no meter on this board" in done.stderr


def test_the_sensor_is_found_wherever_the_bus_has_it(nano):
    """The 2 GB board's carrier, and every other kernel, number buses and devices otherwise."""
    moved = nano.root / "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device3"
    moved.parent.mkdir()
    nano.meter.parent.rename(moved)
    (moved / "rail_name_0").rename(moved / "rail_name_4")
    (moved / "in_power0_input").rename(moved / "in_power4_input")
    nano.how = {"hurry": False}
    done = nano.bench()
    assert done.returncode == 0, done.stderr
    report = nano.report()
    assert (report["power_source"], report["power_w"]) == (
        "ina3221:POM_5V_IN",
        pytest.approx(5.716),
    )


def test_a_sensor_that_vanishes_is_told(nano):
    nano.how = {"meter": str(nano.meter), "vanishes": True}
    done = nano.bench()
    assert done.returncode == 0, done.stderr
    report = BenchReport.parse(nano.report())
    assert report.power_w is None
    assert "vanished in the run" in report.power_note
    assert "vanished in the run" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_sensor_that_may_not_be_read_is_told(nano):
    nano.meter.chmod(0)
    assert nano.bench().returncode == 0
    assert "may not be read by this user" in nano.report()["power_note"]


def test_later_kernels_show_volts_and_amperes():
    (sensor,) = nano_agent.find_sensors(nano_agent.Tree(BOARDS / "orin-nano"))
    (meter,) = find_meters(BOARDS / "orin-nano")
    assert sensor.source == meter.source == "ina3221:VDD_IN"
    assert sensor.read_w() == pytest.approx(5.064 * 0.984)


def sampled(watts, begin: float, end: float, hz: float = 10.0) -> list[tuple[float, float]]:
    n = round((end - begin) * hz)
    return [(begin + i / hz, watts(begin + i / hz)) for i in range(n + 1)]


@pytest.mark.parametrize(
    ("watts", "joules"),
    [
        (lambda t: 5.0, 5.0 * 3.3),
        (lambda t: 3 + t, 3 * 3.3 + (4.35**2 - 1.05**2) / 2),
        (
            lambda t: 5 + math.sin(2 * t),
            5 * 3.3 - (math.cos(8.7) - math.cos(2.1)) / 2,
        ),
    ],
)
def test_the_integral_is_the_one_by_hand(watts, joules):
    found = nano_agent.energy_j(sampled(watts, 0, 6), 1.05, 4.35)
    assert found == pytest.approx(joules, rel=0.01)


def test_a_trace_with_a_hole_or_too_short_has_no_energy():
    whole = sampled(lambda t: 5.0, 0, 6)
    assert nano_agent.energy_j(whole, 1, 4) == pytest.approx(15)
    assert nano_agent.energy_j([s for s in whole if not 2 < s[0] < 2.6], 1, 4) is None
    assert nano_agent.energy_j(whole, 1, 1.3) is None
    assert nano_agent.energy_j(whole, 5, 6.2) is None
    assert nano_agent.energy_j(whole[20:], 1, 4) is None
    assert nano_agent.energy_j([], 1, 4) is None


# ------------------------------------------------------------------------------ heat and throttling


@pytest.mark.parametrize(("state", "throttled"), [(0, False), (3, True)])
def test_the_kernels_thermal_throttles_are_told(nano, state, throttled):
    """Cooling devices as the device tree of a Nano's L4T names them."""
    for number, (name, on) in enumerate(
        {"pwm-fan": 255, "CORE-cap": 1, "cpu-balanced": state, "gpu-balanced": 0}.items()
    ):
        device = nano.root / f"sys/class/thermal/cooling_device{number}"
        device.mkdir()
        (device / "type").write_text(f"{name}\n")
        (device / "cur_state").write_text(f"{on}\n")
    gpu = nano.root / "sys/class/devfreq/57000000.gpu"
    gpu.mkdir(parents=True)
    (gpu / "cur_freq").write_text("921600000\n")
    assert nano.bench().returncode == 0
    report = BenchReport.parse(nano.report())
    assert report.throttled is throttled
    assert report.throttle_reasons == (("cpu-balanced",) if throttled else ())
    assert report.gpu_mhz == 921.6


# ------------------------------------------------------------------------------------------- int8


@pytest.mark.parametrize("by_flag", [True, False])
def test_int8_that_is_asked_for_becomes_fp16_and_is_said(nano, by_flag):
    if not by_flag:
        nano.describe(precision="int8", precision_asked="int8")
    done = nano.bench(*(["--int8"] if by_flag else []))
    assert done.returncode == 0, done.stderr
    assert "int8 was asked for; the GPU of this board has no int8 arithmetic" in done.stderr
    report = BenchReport.parse(nano.report())
    assert report.precision == "fp16"
    assert report.engine["precision_asked"].startswith("int8: ")
    assert "--int8" not in report.engine["built_with"]


@pytest.mark.parametrize(("precision", "verdict"), [("fp16", "passed"), ("int8", None)])
def test_a_gate_is_of_the_precision_that_it_judged(nano, precision, verdict):
    nano.describe(precision=precision, precision_asked=precision, gate=GATE)
    assert nano.bench().returncode == 0
    assert BenchReport.parse(nano.report()).gate == verdict


def test_a_quantized_onnx_that_does_not_build_names_the_one_that_does(nano):
    nano.how = {"build": "unreadable"}
    nano.describe(b"QuantizeLinear.", precision="int8", precision_asked="int8")
    refused(nano.bench(), 1, "which is quantized", "makes the FP16 one")


# --------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ({"build": "killed"}, 1, ("memory ran out", "3964 MB memory and 0 MB swap", "swapon")),
        ({"build": "memory"}, 1, ("memory ran out", "--workspace 256")),
        ({"build": "full"}, 1, ("the disk is full", "free some disk space")),
        ({"build": "unreadable"}, 1, ("Failed to parse ONNX model from file", "musgd export")),
        ({"run": "fails"}, 1, ("does not run", "Serialization assertion")),
        ({"run": "silent"}, 3, ("does not say when it began",)),
        ({"lacks": "--exposeDMA"}, 3, ("Unknown option: --exposeDMA",)),
        ({"hides": "--workspace"}, 3, ("without --workspace", "JetPack 4.6")),
        ({"version": "100300"}, 3, ("is of TensorRT 10.3.0", "8.0 to 8.2")),
        ({"version": "7103"}, 3, ("is of TensorRT 7.1.3",)),
    ],
)
def test_what_trtexec_fails_at_is_told(nano, how, code, words):
    nano.how = how
    refused(nano.bench(), code, *words)
    assert not [name for name in nano.left() if not name.endswith(".engine")]
    if "build" in how:
        assert nano.left() == set()


def test_a_truncated_onnx_is_seen_by_its_hash_or_by_the_parser(nano):
    file = nano.artifact / "model.onnx"
    file.write_bytes(file.read_bytes()[:-3])
    refused(nano.bench(), 1, "is not the one that was exported", "copy the whole folder")
    nano.describe(b"a mod")  # it was exported so
    refused(nano.bench(), 1, "Failed to parse ONNX model from file")
    assert nano.left() == set()


def test_an_artifact_that_is_none_is_told(nano):
    (nano.artifact / "model.onnx").unlink()
    refused(nano.bench(), 1, "lacks", "model.onnx")
    nano.describe(runtime="ncnn")
    refused(nano.bench(), 2, "made for ncnn", "musgd export --target jetson-nano")
    (nano.artifact / "artifact.json").write_text('{"schema": "1.0"}')
    refused(nano.bench(), 2, "no artifact's record")
    (nano.artifact / "artifact.json").unlink()
    refused(nano.bench(), 2, "artifact.json does not exist")


@pytest.mark.parametrize(
    "damage",
    [
        {"precision": None},
        {"precision_asked": 16},
        {"gate": "x"},
        {"gate": {"verdict": 1}},
        {"imgsz": None},
        {"imgsz": True},
        {"files": "model.onnx"},
        {"files": [1]},
        {"names": {"0": "red"}},
        {"size_mb": math.inf},
    ],
    ids=str,
)
def test_a_damaged_record_is_told_before_all_is_measured(nano, damage):
    file = nano.artifact / "artifact.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    with pytest.raises(nano_agent.AgentError, match="is no artifact's record: ") as told:
        nano_agent.read_artifact(nano.artifact)
    assert told.value.code == 2


def test_a_record_that_is_a_list_is_told(nano):
    (nano.artifact / "artifact.json").write_text("[]")
    refused(nano.bench(), 2, "is no artifact's record: it holds no record")


def test_without_trtexec_it_says_what_brings_it(nano, nano_of, tmp_path):
    nano.trtexec.unlink()
    refused(nano.bench(), 3, "no trtexec in /usr/src/tensorrt/bin/trtexec", "libnvinfer-bin")
    refused(nano.bench("--trtexec", str(tmp_path / "none")), 2, "does not exist", "--trtexec")
    other = nano_of("jetson-nano-mainline")
    other.trtexec.unlink()
    refused(other.bench(), 3, "flash JetPack 4.6")


def test_a_trtexec_elsewhere_is_taken(nano, tmp_path):
    nano.trtexec.rename(tmp_path / "mine")
    assert nano.bench("--trtexec", str(tmp_path / "mine")).returncode == 0
    (tmp_path / "broken").write_text("no program")
    refused(nano.bench("--trtexec", str(tmp_path / "broken")), 3, "cannot run")


def test_a_bare_name_is_that_of_a_file_here(nano, tmp_path, monkeypatch):
    """What runs a program without a slash in its name looks for it in the PATH."""
    (tmp_path / "mine").touch()
    monkeypatch.chdir(tmp_path)
    tree = nano_agent.Tree(nano.root)
    for given in ("mine", "./mine"):
        assert nano_agent.find_trtexec(given, tree, {}) == tmp_path / "mine"


def test_an_engine_that_was_cut_short_is_built_anew(nano):
    assert nano.bench().returncode == 0
    (engine,) = nano.engines.iterdir()
    whole = engine.read_bytes()
    engine.write_bytes(b"half of an eng")
    done = nano.bench()
    assert done.returncode == 0, done.stderr
    assert "it is built anew" in done.stderr
    assert engine.read_bytes() == whole


def test_a_report_is_never_written_over(nano):
    out = nano.root / "report.json"
    out.write_text("mine")
    refused(nano.bench("--out", str(out)), 2, "exists already")
    assert out.read_text() == "mine"


def test_a_report_that_cannot_be_written_is_told_before_all_is_measured(nano):
    out = nano.root / "file/report.json"
    out.parent.touch()
    done = nano.bench("--out", str(out))
    refused(done, 1, f"cannot write {out}", "--out FILE.json")
    assert "building" not in done.stderr
    assert nano.left() == set()


def test_a_full_disk_is_seen_before_minutes_of_building(nano, monkeypatch, capsys):
    usage = shutil.disk_usage(nano.root)._replace(free=9 << 20)
    monkeypatch.setattr(nano_agent.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setenv("XDG_CACHE_HOME", str(nano.home / ".cache"))
    code = nano_agent.main(["bench", str(nano.artifact), "--root", str(nano.root)])
    assert code == 1
    assert "9 MB are free" in capsys.readouterr().err
    assert nano.left() == set()


def test_a_report_that_does_not_fit_is_not_kept_by_half(nano, monkeypatch, capsys):
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    assert nano.bench().returncode == 0
    before = nano.left()
    monkeypatch.setattr(nano_agent.os, "fsync", full)
    monkeypatch.setenv("XDG_CACHE_HOME", str(nano.home / ".cache"))
    short = ["--duration", "1", "--repeats", "1", "--warmup", "0", "--idle", "0"]
    code = nano_agent.main(["bench", str(nano.artifact), "--root", str(nano.root), *short])
    assert code == 1
    assert "No space left on device" in capsys.readouterr().err
    assert nano.left() == before


@pytest.mark.parametrize("phase", ["building", "timing"])
def test_ctrl_c_leaves_nothing_half_done(nano, phase):
    nano.how = {"build": "slow"} if phase == "building" else {}
    arguments = ("--root", str(nano.root), "--idle", "0", "--duration", "9")
    process = nano.start("bench", str(nano.artifact), *arguments)
    for line in process.stderr:
        if line.startswith(phase):
            break
    time.sleep(0.5)
    code, said = interrupted(process)
    assert code == 130
    assert said.startswith("error: interrupted\nmend: ")
    assert {name for name in nano.left() if not name.endswith(".engine")} == set()
    assert len(nano.left()) == (0 if phase == "building" else 1)
    assert (
        str(nano.home)
        not in subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout.decode()
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "required"),
        (("bench",), "ARTIFACT_DIR"),
        (("bench", ".", "--duration", "0"), "not above 0"),
        (("bench", ".", "--repeats", "0"), "less than 1"),
        (("bench", ".", "--frames", "3"), "--frames"),
    ],
)
def test_a_wrong_command_line_is_told_in_two_lines(nano, arguments, words):
    done = nano.run(*arguments)
    refused(done, 2, words, f"\nmend: python3 {shlex.quote(NANO_AGENT)} ")
    assert done.stderr.endswith(" --help\n")


def test_it_is_named_as_it_was_called(tmp_path, monkeypatch):
    here = tmp_path / "a folder"
    here.mkdir()
    monkeypatch.setattr(sys, "argv", [f"{here}/nano_agent.py"])
    assert nano_agent.parser().prog == f"python3 '{here}/nano_agent.py'"
    (here / "musgd").touch()  # what install.sh puts there runs it
    assert nano_agent.parser().prog == "musgd"
    assert "example: musgd bench " in nano_agent.parser().format_help()
