"""The real nvidia-ml-py against a driver library built here: no test machine has a GPU."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from musgd_cli.records import PowerReading

# 250 W, counted and shown; 62 degrees. The variables leave out what older cards lack.
DRIVER = r"""
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DONE = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
enum { DRIVER_NOT_LOADED = 9 };
struct memory { unsigned long long total, free, used; };
struct process { unsigned pid; unsigned long long used; unsigned instance, compute; };

int nvmlInitWithFlags(unsigned flags) {
    return getenv("STUB_NO_DRIVER") ? DRIVER_NOT_LOADED : DONE;
}
int nvmlSystemGetDriverVersion(char *version, unsigned size) {
    strncpy(version, "580.95.05", size);
    return DONE;
}
int nvmlDeviceGetCount_v2(unsigned *n) {
    *n = 2;
    return DONE;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (index > 1) return INVALID_ARGUMENT;
    *handle = (void *)(index + 1L);
    return DONE;
}
int nvmlDeviceGetUUID(void *h, char *uuid, unsigned size) {
    strncpy(uuid, h == (void *)1 ? "GPU-aaaa-1" : "GPU-bbbb-2", size);
    return DONE;
}
int nvmlDeviceGetName(void *h, char *name, unsigned size) {
    strncpy(name, h == (void *)1 ? "NVIDIA Test Card" : "NVIDIA Second Card", size);
    return DONE;
}
int nvmlDeviceGetClockInfo(void *h, int domain, unsigned *mhz) {
    *mhz = domain == 1 ? 1980 : 7000;
    return DONE;
}
int nvmlDeviceGetMemoryInfo(void *h, struct memory *m) {
    m->total = 24ULL << 30;
    return DONE;
}
int nvmlDeviceGetTemperature(void *h, int sensor, unsigned *degrees) {
    *degrees = 62;
    return DONE;
}
int nvmlDeviceGetPowerUsage(void *h, unsigned *milliwatts) {
    if (getenv("STUB_NO_POWER")) return NOT_SUPPORTED;
    *milliwatts = 250000;
    return DONE;
}
int nvmlDeviceGetTotalEnergyConsumption(void *h, unsigned long long *millijoules) {
    struct timespec now;
    if (getenv("STUB_NO_COUNTER")) return NOT_SUPPORTED;
    if (getenv("STUB_COUNT")) {
        *millijoules = strtoull(getenv("STUB_COUNT"), 0, 10);
        return DONE;
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 250 * (now.tv_sec * 1000ULL + now.tv_nsec / 1000000);
    return DONE;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *h, unsigned *n, struct process *p) {
    unsigned room = *n;
    *n = 3;
    if (room < 3) return INSUFFICIENT_SIZE;
    memset(p, 0, 3 * sizeof *p);
    p[0].pid = 41, p[0].used = strtoull(getenv("STUB_USED_MB"), 0, 10) << 20;
    p[1].pid = 42, p[1].used = 300ULL << 20;
    p[2].pid = 43, p[2].used = ~0ULL; /* the driver does not tell */
    return DONE;
}
int nvmlDeviceGetCurrentClocksThrottleReasons(void *h, unsigned long long *reasons) {
    *reasons = strtoull(getenv("STUB_REASONS"), 0, 16);
    return DONE;
}
"""

ASK = """
import json, os, time
from musgd_cli.hardware import detect, power, thermal
from musgd_cli.hardware.nvml import first_gpu
host = detect()
meter = power.best_meter(device="gpu")
answer = {
    "board": host.board,
    "gpu": host.gpu,
    "memory": host.gpu_memory_mb,
    "by": host.decided_by,
    "meters": host.power_meters,
    "temperature": thermal.temperature_c(device="gpu"),
    "driver": first_gpu() and first_gpu().driver,
    "throttled": {},
    "reasons": {},
}
for reasons in "0 1 103 4 8 20 40 81".split():
    os.environ["STUB_REASONS"] = reasons
    answer["throttled"][reasons] = thermal.throttled(device="gpu")
    answer["reasons"][reasons] = thermal.throttle_reasons(device="gpu")
if meter is not None:
    meter.begin()
    time.sleep(0.3)
    answer["reading"] = meter.end().model_dump()
print(json.dumps(answer))
"""


REPLAY = """
import json, os, sys
from musgd_cli.hardware.conditions import look
from musgd_cli.hardware.nvml import first_gpu
from musgd_cli.hardware.power import find_meters, why_none

sys.path.insert(0, sys.argv[1])
from conftest import ReplayClock

def play(t):
    # 60 W for 10 s, a rise to 350 W within 5 s, then 350 W.
    risen = min(5.0, max(0.0, t - 10))
    joules = 60 * t + 58 * risen ** 2 / 2 + 290 * max(0.0, t - 15)
    os.environ["STUB_COUNT"] = str(7_000_000 + int(1000 * joules))

gpu = first_gpu()
os.environ["STUB_USED_MB"] = "700"
answer = {
    "memory": {pid: gpu.process_memory_mb(pid) for pid in (41, 42, 43, 44)},
    "why": why_none(device="gpu"),
}
os.environ["STUB_REASONS"] = "40"
answer["look"] = vars(look(device="gpu"))
clock = ReplayClock(play)
meters = [meter for meter in find_meters(clock=clock) if meter.scope == "gpu"]
for meter in meters:
    clock.skip(8.0)
    answer["reading"] = clock.measure(meter, 40.0).model_dump()
print(json.dumps(answer))
"""


WATCH = """
import json, os, time
from musgd_cli.bench.watch import Watch

os.environ["STUB_REASONS"] = "0"
os.environ["STUB_USED_MB"] = "100"
watch = Watch(device="gpu")
with watch.timed(41):
    os.environ["STUB_USED_MB"] = "900"
    while len(watch.looks) < 2:
        time.sleep(0.01)
    os.environ["STUB_USED_MB"] = "200"  # freed before the end
print(json.dumps({"most": watch.gpu_memory_mb}))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to build the driver library with")
    pytest.importorskip("pynvml")
    folder = tmp_path_factory.mktemp("driver")
    (folder / "nvml.c").write_text(DRIVER)
    command = [compiler, "-shared", "-fPIC", "-o", "libnvidia-ml.so.1", "nvml.c"]
    subprocess.run(command, cwd=folder, check=True)
    return folder


def ask(driver: Path, script: str = ASK, **variables: str) -> dict[str, Any]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_card_is_found_named_and_metered_by_its_counter(driver: Path) -> None:
    answer = ask(driver)
    assert answer["gpu"] == "NVIDIA Test Card"
    assert answer["memory"] == 24576
    assert answer["driver"] == "580.95.05"
    if os.uname().machine == "x86_64":
        assert (answer["board"], answer["by"]) == ("x86-gpu", "NVIDIA driver")
    assert answer["meters"][-1] == "nvml:energy"
    reading = PowerReading.model_validate(answer["reading"])
    assert reading.power_w == pytest.approx(250, rel=0.05)
    assert (reading.scope, reading.kind, reading.hz) == ("gpu", "reported", None)
    assert answer["temperature"] == 62


@pytest.mark.parametrize(
    ("visible", "name"),
    [
        ("0,1", "NVIDIA Test Card"),
        ("1", "NVIDIA Second Card"),
        ("GPU-bbbb", "NVIDIA Second Card"),
        ("GPU-cccc", "NVIDIA Test Card"),
        ("-1", "NVIDIA Test Card"),
        ("7", None),
    ],
)
def test_the_card_is_the_one_that_cuda_sees_first(
    visible: str, name: str | None, driver: Path
) -> None:
    answer = ask(driver, CUDA_VISIBLE_DEVICES=visible)
    assert answer["gpu"] == name


def test_a_replayed_counter_within_1_percent(driver: Path) -> None:
    reading = PowerReading.model_validate(ask(driver, REPLAY)["reading"])
    # From the 8th second to the 48th: at rest, rising, at work.
    by_hand = 2 * 60 + 5 * (60 + 350) / 2 + 33 * 350
    assert reading.energy_j == pytest.approx(by_hand, rel=0.01)
    assert reading.seconds == pytest.approx(40.0)


def test_memory_of_one_process(driver: Path) -> None:
    answer = ask(driver, REPLAY)
    assert answer["memory"] == {"41": 700, "42": 300, "43": None, "44": None}
    assert answer["look"]["temperature_c"] == 62
    assert answer["look"]["throttled"] is True
    assert answer["look"]["throttle_reasons"] == ["hardware thermal slowdown"]
    assert answer["look"]["gpu_mhz"] == 1980


def test_the_most_memory_within_the_timed_frames_not_that_at_their_end(driver: Path) -> None:
    assert ask(driver, WATCH) == {"most": 900}


def test_a_card_without_counter_is_sampled(driver: Path) -> None:
    answer = ask(driver, STUB_NO_COUNTER="1")
    assert answer["meters"][-1] == "nvml:power"
    reading = PowerReading.model_validate(answer["reading"])
    assert reading.power_w == pytest.approx(250, rel=0.05)
    assert reading.hz is not None and reading.hz > 5


def test_a_card_that_tells_no_power_has_no_meter(driver: Path) -> None:
    answer = ask(driver, STUB_NO_COUNTER="1", STUB_NO_POWER="1")
    assert answer["gpu"] == "NVIDIA Test Card"
    assert "reading" not in answer
    why = ask(driver, REPLAY, STUB_NO_COUNTER="1", STUB_NO_POWER="1")["why"]
    assert why == "NVIDIA's driver does not tell this card's power"


def test_idle_and_chosen_clocks_are_not_throttling(driver: Path) -> None:
    answer = ask(driver)
    assert answer["reasons"] == {
        "0": [],
        "1": [],
        "103": [],
        "4": ["power cap"],
        "8": ["hardware slowdown"],
        "20": ["software thermal slowdown"],
        "40": ["hardware thermal slowdown"],
        "81": ["power brake"],
    }
    assert answer["throttled"] == {
        "0": False,
        "1": False,  # idle
        "103": False,  # idle, application clocks, display clocks
        "4": True,
        "8": True,
        "20": True,
        "40": True,
        "81": True,
    }


def test_a_library_without_driver_is_no_card(driver: Path) -> None:
    answer = ask(driver, STUB_NO_DRIVER="1")
    assert answer["gpu"] is None
    assert answer["board"] != "x86-gpu"
