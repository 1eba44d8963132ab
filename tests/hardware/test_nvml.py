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

enum { DONE = 0, NOT_SUPPORTED = 3, DRIVER_NOT_LOADED = 9 };
struct memory { unsigned long long total, free, used; };

int nvmlInitWithFlags(unsigned flags) {
    return getenv("STUB_NO_DRIVER") ? DRIVER_NOT_LOADED : DONE;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    *handle = (void *)1;
    return DONE;
}
int nvmlDeviceGetName(void *h, char *name, unsigned size) {
    strncpy(name, "NVIDIA Test Card", size);
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
    clock_gettime(CLOCK_MONOTONIC, &now);
    *millijoules = 250 * (now.tv_sec * 1000ULL + now.tv_nsec / 1000000);
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
host = detect()
meter = power.best_meter(device="gpu")
answer = {
    "board": host.board,
    "gpu": host.gpu,
    "memory": host.gpu_memory_mb,
    "by": host.decided_by,
    "meters": host.power_meters,
    "temperature": thermal.temperature_c(device="gpu"),
    "throttled": {},
}
for reasons in "0 1 103 4 8 20 40 81".split():
    os.environ["STUB_REASONS"] = reasons
    answer["throttled"][reasons] = thermal.throttled(device="gpu")
if meter is not None:
    meter.begin()
    time.sleep(0.3)
    answer["reading"] = meter.end().model_dump()
print(json.dumps(answer))
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


def ask(driver: Path, **variables: str) -> dict[str, Any]:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), **variables}
    done = subprocess.run(
        [sys.executable, "-c", ASK], env=environment, capture_output=True, text=True, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_card_is_found_named_and_metered_by_its_counter(driver: Path) -> None:
    answer = ask(driver)
    assert answer["gpu"] == "NVIDIA Test Card"
    assert answer["memory"] == 24576
    if os.uname().machine == "x86_64":
        assert (answer["board"], answer["by"]) == ("x86-gpu", "NVIDIA driver")
    assert answer["meters"][-1] == "nvml:energy"
    reading = PowerReading.model_validate(answer["reading"])
    assert reading.power_w == pytest.approx(250, rel=0.05)
    assert (reading.scope, reading.kind, reading.hz) == ("gpu", "reported", None)
    assert answer["temperature"] == 62


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


def test_idle_and_chosen_clocks_are_not_throttling(driver: Path) -> None:
    assert ask(driver)["throttled"] == {
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
