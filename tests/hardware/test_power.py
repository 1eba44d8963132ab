"""Which meter a machine has, which one is taken, and what is said where none is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from musgd_cli.errors import UnsupportedError, UsageError
from musgd_cli.hardware.power import (
    CsvMeter,
    PowerMeter,
    best_meter,
    choose_meter,
    find_meters,
    refused,
    why_none,
)

BOARDS = Path(__file__).parents[1] / "boards"
RAPL = "sys/class/powercap/intel-rapl:0/energy_uj"

Copied = Callable[[str], Path]


def meter_of(tree: Path) -> PowerMeter:
    meter = best_meter(tree)
    assert meter is not None
    return meter


def sources(tree: Path) -> list[str]:
    return [meter.source for meter in find_meters(tree)]


def add_sensor(tree: Path, number: int, name: str, **files: object) -> Path:
    sensor = tree / f"sys/class/hwmon/hwmon{number}"
    sensor.mkdir(parents=True)
    for file, text in {"name": name, **files}.items():
        path = sensor / file.replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"{text}\n")
    return sensor


# --------------------------------------------------------------------------------- which there are


@pytest.mark.parametrize(
    ("name", "source", "scope", "kind", "hz"),
    [
        ("pi4b-ina219", "ina219:hwmon2", "board", "measured", 10.0),
        ("pi5", "pmic:rails", "rails", "reported", 2.0),
        ("jetson-nano", "ina3221:POM_5V_IN", "module", "measured", 10.0),
        ("orin-nano", "ina3221:VDD_IN", "module", "measured", 10.0),
        ("x86-gpu", "rapl:package-0", "package", "reported", None),
        ("x86-cpu", "rapl:package-0+package-1", "package", "reported", None),
    ],
)
def test_the_meter_of_each_board(
    name: str, source: str, scope: str, kind: str, hz: float | None
) -> None:
    meters = find_meters(BOARDS / name)
    assert [(m.source, m.scope, m.kind, m.hz) for m in meters] == [(source, scope, kind, hz)]


@pytest.mark.parametrize(
    "name", ["pi4b", "pi4b-docker", "jetson-nano-2gb", "jetson-nano-mainline", "wsl"]
)
def test_no_meter_is_made_up(name: str) -> None:
    assert find_meters(BOARDS / name) == []
    assert best_meter(BOARDS / name) is None
    assert why_none(BOARDS / name) == "no meter on this board"


def test_the_chips_own_meter_says_nothing_of_work_on_the_gpu() -> None:
    assert best_meter(BOARDS / "x86-gpu", device="gpu") is None
    board = best_meter(BOARDS / "pi4b-ina219", device="gpu")
    assert board is not None and board.scope == "board"


@pytest.mark.parametrize("chip", ["ina219", "ina226", "ina228", "ina238", "ina260"])
def test_the_board_is_measured_rather_than_the_chip(chip: str, copied: Copied) -> None:
    tree = copied("x86-cpu")
    add_sensor(tree, 7, chip, power1_input=48_000_000)
    assert [meter.scope for meter in find_meters(tree)] == ["board", "package"]
    assert meter_of(tree).source == f"{chip}:hwmon7"


def test_of_two_board_sensors_one_must_be_named(copied: Copied) -> None:
    tree = copied("pi4b-ina219")
    shutil.copytree(tree / "sys/class/hwmon/hwmon2", tree / "sys/class/hwmon/hwmon3")
    assert best_meter(tree) is None
    assert why_none(tree) == (
        "what ina219:hwmon2 and ina219:hwmon3 measure cannot be told: name one with --meter"
    )
    named = choose_meter("ina219:hwmon3", root=tree)
    assert named is not None and named.scope == "sensor"


@pytest.mark.parametrize(
    ("driver", "file", "scope", "hz"),
    [
        ("power_meter", "power1_average", "board", 1.0),
        ("fam15h_power", "power1_average", "package", 1.0),
        ("fam15h_power", "power1_input", "package", 1.0),
        ("corsairpsu", "power1_input", "sensor", 1.0),
    ],
)
def test_any_other_power_sensor(
    driver: str, file: str, scope: str, hz: float, tmp_path: Path
) -> None:
    add_sensor(tmp_path, 0, driver, **{file: 31_500_000, "power1_average_interval": 1000})
    meter = meter_of(tmp_path)
    assert (meter.source, meter.scope) == (f"{driver}:hwmon0", scope)
    # Firmware worked it out, and not more often than it says.
    assert (meter.kind, meter.hz) == ("reported", hz)


def test_of_two_servers_inputs_neither_is_the_whole(copied: Copied) -> None:
    tree = copied("x86-cpu")
    for number in (7, 8):
        add_sensor(tree, number, "power_meter", power1_average=200_000_000)
    assert [meter.scope for meter in find_meters(tree)] == ["package", "sensor", "sensor"]
    assert meter_of(tree).source == "rapl:package-0+package-1"


def test_what_is_drawn_now_rather_than_a_mean(tmp_path: Path) -> None:
    add_sensor(tmp_path, 0, "fam15h_power", power1_average=1_000_000, power1_input=2_000_000)
    meter = meter_of(tmp_path)
    meter.begin()
    reading = meter.end()
    assert reading is not None and reading.power_w == pytest.approx(2)


def test_a_graphics_card_is_no_meter_of_the_cpu(tmp_path: Path) -> None:
    add_sensor(tmp_path, 0, "amdgpu", power1_average=31_500_000)
    assert sources(tmp_path) == ["amdgpu:hwmon0"]
    assert best_meter(tmp_path) is None


def test_an_unknown_sensor_comes_after_all_others(copied: Copied) -> None:
    tree = copied("x86-gpu")
    add_sensor(tree, 7, "corsairpsu", power1_input=90_000_000)
    assert sources(tree) == ["rapl:package-0", "corsairpsu:hwmon7"]
    assert meter_of(tree).source == "rapl:package-0"


def test_a_battery_measures_the_machine_only_while_it_feeds_it(tmp_path: Path) -> None:
    battery = add_sensor(
        tmp_path,
        0,
        "BAT0",
        power1_input=9_000_000,
        device__type="Battery",
        device__status="Discharging",
    )
    meter = meter_of(tmp_path)
    assert (meter.source, meter.scope, meter.kind) == ("BAT0:hwmon0", "board", "reported")
    assert meter.hz == 1.0
    meter.begin()
    (battery / "device/status").write_text("Charging\n")
    assert meter.end() is None
    assert find_meters(tmp_path) == []
    assert refused(tmp_path) == ()


def test_a_slow_battery_comes_after_the_chips_own_counter(copied: Copied) -> None:
    tree = copied("x86-gpu")
    files = {"device__type": "Battery", "device__status": "Discharging"}
    add_sensor(tree, 7, "BAT0", power1_input=9_000_000, **files)
    assert sources(tree) == ["rapl:package-0", "BAT0:hwmon7"]
    assert meter_of(tree).source == "rapl:package-0"


# ------------------------------------------------------------------------------------- the choice


def test_the_best_meter_unless_told_otherwise() -> None:
    chosen = choose_meter(None, root=BOARDS / "jetson-nano")
    assert chosen is not None and chosen.source == "ina3221:POM_5V_IN"
    assert choose_meter("none", root=BOARDS / "jetson-nano") is None
    assert choose_meter(None, root=BOARDS / "pi4b") is None


@pytest.mark.parametrize("spec", ["rapl", "rapl:package-0", "rapl:package-0+package-1"])
def test_a_meter_by_the_beginning_of_its_name(spec: str) -> None:
    chosen = choose_meter(spec, root=BOARDS / "x86-cpu")
    assert chosen is not None and chosen.source == "rapl:package-0+package-1"


@pytest.mark.parametrize("spec", ["", " ", "nvml", "RAPL", "apl", "rapl:package-0 "])
def test_a_name_of_none_names_those_there_are(spec: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_meter(spec, root=BOARDS / "x86-gpu")
    assert repr(spec) in caught.value.what
    assert "rapl:package-0" in caught.value.mend


def test_a_name_where_there_is_no_meter() -> None:
    with pytest.raises(UsageError) as caught:
        choose_meter("rapl", root=BOARDS / "pi4b")
    assert caught.value.mend == "pass none, or a file that ends in .csv"


def test_a_name_of_several_names_them(copied: Copied) -> None:
    tree = copied("x86-gpu")
    for number in (7, 8):
        add_sensor(tree, number, "ina226", power1_input=90_000_000)
    with pytest.raises(UsageError, match="more than one") as caught:
        choose_meter("ina", root=tree)
    assert "ina226:hwmon7, ina226:hwmon8" in caught.value.mend
    assert "rapl" not in caught.value.mend


def test_a_csv_file_by_its_ending(tmp_path: Path) -> None:
    file = tmp_path / "Meter.CSV"
    file.write_text("time,power_w\n")
    assert isinstance(choose_meter(str(file), root=BOARDS / "pi4b"), CsvMeter)
    with pytest.raises(UsageError, match=r"gone\.csv"):
        choose_meter(str(tmp_path / "gone.csv"))


# -------------------------------------------------------------------------------------- refusals


def test_a_counter_that_may_not_be_read_is_told(as_nobody: Copied) -> None:
    tree = as_nobody("x86-cpu")
    assert refused(tree) == ()
    counter = tree / "sys/class/powercap/intel-rapl:1/energy_uj"
    counter.chmod(0)
    # One package's energy is not passed off as both's.
    assert find_meters(tree) == []
    (refusal,) = refused(tree)
    assert refusal.path == counter
    assert "powercap" in refusal.mend and "/etc/udev/rules.d/" in refusal.mend
    assert why_none(tree) == (f"rapl:package-0+package-1 may not be read by this user: {counter}")
    assert best_meter(tree) is choose_meter(None, root=tree) is None
    with pytest.raises(UnsupportedError) as caught:
        choose_meter("rapl", root=tree)
    assert str(counter) in caught.value.what
    assert caught.value.mend == refusal.mend


@pytest.mark.parametrize(
    ("name", "file", "spec", "subsystem"),
    [
        ("pi4b-ina219", "sys/class/hwmon/hwmon2/power1_input", "ina219", "hwmon"),
        (
            "jetson-nano",
            "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0/in_power0_input",
            "ina3221",
            "iio",
        ),
        ("orin-nano", "sys/class/hwmon/hwmon1/curr1_input", "ina3221", "hwmon"),
        ("pi5", "dev/vcio", "pmic", "video"),
    ],
)
def test_what_lets_this_user_read_each_sensor(
    name: str, file: str, spec: str, subsystem: str, as_nobody: Copied
) -> None:
    tree = as_nobody(name)
    if name == "pi5":
        (tree / "dev").mkdir()
        (tree / file).touch()
        (tree / "answers/vcgencmd pmic_read_adc").write_text("Can't open device file: /dev/vcio\n")
    (tree / file).chmod(0)
    assert find_meters(tree) == []
    with pytest.raises(UnsupportedError, match="may not be read") as caught:
        choose_meter(spec, root=tree)
    assert file in caught.value.what
    assert subsystem in caught.value.mend
    assert file in why_none(tree)


@pytest.mark.parametrize("silent", [True, False])
def test_a_sensor_that_does_not_answer_is_not_refused(silent: bool, copied: Copied) -> None:
    tree = copied("pi4b-ina219")
    sensor = tree / "sys/class/hwmon/hwmon2/power1_input"
    sensor.unlink()
    if silent:
        sensor.touch()
    else:
        sensor.mkdir()  # an error of another kind than of permission
    assert refused(tree) == () and find_meters(tree) == []


def test_a_pi5_without_its_command(copied: Copied) -> None:
    tree = copied("pi5")
    shutil.rmtree(tree / "answers")
    assert best_meter(tree) is None
    assert "vcgencmd" in why_none(tree)


# -------------------------------------------------------------------------------------- estimates


def test_an_estimate_only_for_those_who_ask() -> None:
    estimated = choose_meter(None, root=BOARDS / "pi4b", estimate=True)
    assert estimated is not None
    assert (estimated.source, estimated.scope, estimated.kind) == (
        "model:pi4b",
        "board",
        "estimated",
    )
    assert "model:pi4b" not in sources(BOARDS / "pi4b")
    named = choose_meter("model", root=BOARDS / "pi4b", estimate=True)
    assert named is not None and named.kind == "estimated"
    with pytest.raises(UsageError, match="no meter"):
        choose_meter("model", root=BOARDS / "pi4b")
    assert choose_meter(None, root=BOARDS / "pi4b", device="gpu", estimate=True) is None
    assert choose_meter("none", root=BOARDS / "pi4b", estimate=True) is None


def test_no_estimate_beside_a_meter(copied: Copied) -> None:
    tree = copied("pi4b")
    add_sensor(tree, 7, "ina219", power1_input=5_000_000)
    chosen = choose_meter(None, root=tree, estimate=True)
    assert chosen is not None and chosen.source == "ina219:hwmon7"


@pytest.mark.parametrize("name", ["pi400", "cm4", "pi3", "generic-arm64", "wsl", "pi4b-docker"])
def test_no_estimate_of_a_board_without_a_model(name: str) -> None:
    assert choose_meter(None, root=BOARDS / name, estimate=True) is None


@pytest.mark.parametrize("missing", ["proc/stat", "sys/devices/system/cpu/cpu2/cpufreq"])
def test_no_estimate_without_what_it_needs(missing: str, copied: Copied) -> None:
    tree = copied("pi4b")
    path = tree / missing
    if path.is_dir():
        (path / "scaling_cur_freq").unlink()
    else:
        path.unlink()
    assert choose_meter(None, root=tree, estimate=True) is None
