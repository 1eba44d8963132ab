"""What a machine says of heat, clocks, power mode and load at one moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from musgd_cli.hardware.conditions import Conditions, look

BOARDS = Path(__file__).parents[1] / "boards"

Copied = Callable[[str], Path]


def test_all_of_a_nanos_conditions() -> None:
    assert look(BOARDS / "jetson-nano") == Conditions(
        temperature_c=39.5,
        cpu_mhz=1479.0,
        cpu_mhz_max=1479.0,
        governor="schedutil",
        power_mode="MAXN",
        throttled=None,
        throttle_reasons=None,
        # user, nice, system and softirq of the recording, in hundredths; not idle, not iowait.
        busy_s=pytest.approx((1234 + 56 + 789 + 12) / 100),
    )


def test_all_of_a_pis_conditions() -> None:
    assert look(BOARDS / "pi4b") == Conditions(
        temperature_c=48.686,
        cpu_mhz=1800.0,
        cpu_mhz_max=1800.0,
        governor="ondemand",
        power_mode=None,
        throttled=False,
        throttle_reasons=(),
        busy_s=pytest.approx(20.91),
    )


def test_an_empty_tree_tells_nothing(tmp_path: Path) -> None:
    assert set(vars(look(tmp_path)).values()) == {None}


def test_cores_that_differ() -> None:
    conditions = look(BOARDS / "generic-arm64")
    # Four little cores at 1.8 GHz; big ones at 2.4, 2.4, 2.256 and, resting, 0.408 GHz.
    assert conditions.cpu_mhz == pytest.approx((4 * 1800 + 2 * 2400 + 2256 + 408) / 8)
    # What a thread on a big core runs at, whatever the others do.
    assert conditions.cpu_mhz_max == 2400
    assert conditions.governor == "performance+ondemand"


def test_a_core_that_is_offline_is_not_counted(copied: Copied) -> None:
    tree = copied("generic-arm64")
    resting = tree / "sys/devices/system/cpu/cpu7/cpufreq"
    for name in ("scaling_cur_freq", "scaling_governor"):
        (resting / name).unlink()
    assert look(tree).cpu_mhz == pytest.approx((4 * 1800 + 2 * 2400 + 2256) / 7)


@pytest.mark.parametrize(
    ("status", "mode"),
    [
        ("pmode:0001 fmode:fanNull\n", "5W"),
        ("pmode:0001", "5W"),
        ("pmode:0007", "mode 7"),  # of which the configuration has no name
        ("", None),
        ("fmode:quiet", None),
    ],
)
def test_the_power_mode_of_a_jetson(status: str, mode: str | None, copied: Copied) -> None:
    tree = copied("jetson-nano")
    (tree / "var/lib/nvpmodel/status").write_text(status)
    assert look(tree).power_mode == mode


def test_a_power_mode_that_is_commented_out_is_none() -> None:
    assert look(BOARDS / "orin-nano").power_mode == "MAXN_SUPER"


@pytest.mark.parametrize(
    ("stat", "seconds"),
    [
        # guest is within user; steal is the machine's time, though another used it
        ("cpu  100 20 30 9999 9999 4 5 6 50 10\n", 1.65),
        ("cpu0 100 20 30 9999 9999 4 5 6\n", None),
        ("cpu  100\n", None),
        ("", None),
    ],
)
def test_cpu_seconds_used_by_all(stat: str, seconds: float | None, tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/stat").write_text(stat)
    assert look(tmp_path).busy_s == (None if seconds is None else pytest.approx(seconds))


def test_this_machine_gets_busy_and_is_looked_at_cheaply() -> None:
    before = look()
    if before.busy_s is None:
        pytest.skip("no /proc/stat here")
    began_s = time.process_time()
    looks = 0
    while time.process_time() - began_s < 0.5:
        after = look()
        looks += 1
    assert after.busy_s is not None
    # Ticks of 10 ms; others may be busy besides.
    assert after.busy_s - before.busy_s > 0.4
    # Twice a second is to cost less than 1 %, on this or on a board of a tenth of its speed.
    assert looks > 50
