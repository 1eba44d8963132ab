"""Profiles: the shipped ones are whole, faults are all named, every machine gets one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli import profiles
from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.records import Host, OptimSettings
from musgd_cli.sections import OPTIMIZERS, read_tables
from musgd_cli.settings import settle

SHIPPED = ("jetson-nano", "pi4b", "x86-cpu", "x86-gpu")


@pytest.fixture
def barn(tmp_path: Path) -> Path:
    """A sound profile of one's own."""
    return profiles.copy_to("pi4b", tmp_path / "barn.toml")


def edit(path: Path, *replacements: tuple[str, str]) -> Path:
    text = path.read_text()
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new, 1)
    path.write_text(text)
    return path


# --------------------------------------------------------------------------------- the shipped ones


def test_these_are_shipped() -> None:
    assert profiles.names() == SHIPPED
    assert tuple(profile.name for profile in profiles.available()) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_has_no_fault(name: str) -> None:
    assert profiles.check(profiles.find(name)) == ()


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_shipped_profile_gives_every_optimizer_all_it_needs(name: str, optimizer: str) -> None:
    plan = settle(
        host=Host(board="x86-cpu"),
        profile=name,
        target=name,
        flags={"optim.name": optimizer},
        environ={},
    )
    assert isinstance(plan.optim, OptimSettings)
    assert plan.optim.name == optimizer


@pytest.mark.parametrize("name", SHIPPED)
def test_every_value_has_its_reason_beside_or_above_it(name: str) -> None:
    above = ""
    for line in profiles.read_text(profiles.find(name)).splitlines():
        value, _, beside = line.partition("#")
        is_setting = "=" in value and not value.startswith(("name =", "summary =", "boards ="))
        if is_setting:
            assert beside or above.startswith("#"), line
        above = line


def test_no_board_is_claimed_twice() -> None:
    boards = [board for profile in profiles.available() for board in profile.boards]
    assert len(boards) == len(set(boards))


def test_small_boards_are_asked_for_what_they_can_do() -> None:
    assert profiles.load("pi4b").train.imgsz <= 320
    assert profiles.load("pi4b").train.amp == "fp32"
    nano = profiles.load("jetson-nano").compress
    # No INT8, no Mod operator.
    assert (nano.precisions, nano.int8, nano.nms_free) == (("fp16",), False, False)


# ------------------------------------------------------------------------------------------ loading


def test_an_unknown_name_names_the_nearest_and_all() -> None:
    with pytest.raises(UsageError, match=r"'x86cpu' \(did you mean x86-cpu\?\)") as caught:
        profiles.load("x86cpu")
    for name in SHIPPED:
        assert name in caught.value.mend
    with pytest.raises(UsageError, match="unknown profile ''"):
        profiles.load("")


def test_a_profile_of_ones_own(barn: Path) -> None:
    edit(barn, ("imgsz = 256", "imgsz = 192"))
    assert profiles.load(str(barn)).train.imgsz == 192
    assert profiles.load(str(barn)).name == "barn"


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    for missing in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(UsageError, match=r"there is no profile|unknown profile"):
            profiles.load(str(missing))
    with pytest.raises(UsageError, match="there is no profile"):
        profiles.check(tmp_path / "none.toml")


def test_a_faulty_profile_is_not_loaded_and_says_why(barn: Path) -> None:
    edit(barn, ("epochs = 100", "epochs = 0"), ("batch = 8", "bacth = 8"))
    with pytest.raises(UsageError) as caught:
        profiles.load(str(barn))
    assert "train.epochs: 0 is not a whole number above 0" in caught.value.what
    assert "train.bacth: unknown key (did you mean train.batch?)" in caught.value.what


# ------------------------------------------------------------------------------------------- faults


def test_all_faults_are_named_at_once_with_file_and_path(barn: Path) -> None:
    edit(
        barn,
        ('name = "barn"', 'name = "pi4b"\nborads = []'),
        ('summary = "', 'summary = 3 # "'),
        ('boards = ["pi4b", "pi400", "cm4"]', 'boards = "pi4b"'),
        ("momentum = 0.9", "momentun = 0.9"),
        ("nesterov = true", ""),
        ("[optim.adamw]\nlr = 0.0042", "[optim.adamw]\nlr = 0\nnesterov = true"),
        ("threads = 0", "threads = -1"),
        ("nms_free = false", ""),
        ("[bench]", "[bench]\nthread = 3"),
    )
    told = [fault.removeprefix(f"{barn}: ") for fault in profiles.check(barn)]
    assert told == [
        "borads: unknown key (did you mean boards?)",
        "name: 'pi4b' is not the file's; write name = \"barn\"",
        "summary: one line of text is needed",
        "boards: a list of board names is needed; [] for none",
        "optim.momentun: unknown key (did you mean optim.momentum?)",
        "optim.adamw.lr: 0 is not a number above 0",
        "optim.adamw.nesterov: adamw has no nesterov",
        "train.threads: -1 is not a whole number of 0 or more",
        "bench.thread: unknown key (did you mean bench.threads?)",
        "optim.momentum: missing",
        "optim.musgd.nesterov: missing",
        "compress.nms_free: missing",
    ]
    assert all(fault.startswith(f"{barn}: ") for fault in profiles.check(barn))


def test_what_an_optimizer_cannot_be_is_a_fault(barn: Path) -> None:
    edit(
        barn,
        ("momentum = 0.9", "momentum = 0.0"),
        ('norm_scope = "tensor"', 'norm_scope = "global"'),  # of [optim.musgd]
    )
    assert profiles.check(barn) == (
        (
            f"{barn}: optim.musgd.norm_scope: musgd cannot be so: "
            "second_moment=rowcol has no norm_scope=global"
        ),
        (
            f"{barn}: optim.musgd.nesterov: musgd cannot be so: "
            "nesterov=true needs a momentum, not momentum=0"
        ),
        (
            f"{barn}: optim.sgd.nesterov: sgd cannot be so: "
            "nesterov=true needs a momentum, not momentum=0"
        ),
    )


def test_a_missing_table_is_told_key_by_key(barn: Path) -> None:
    text = barn.read_text()
    start, end = text.index("[optim.adamw]"), text.index("[train]")
    barn.write_text(text[:start] + text[end:])
    assert profiles.check(barn) == (f"{barn}: optim.adamw.lr: missing",)
    barn.write_text('name = "barn"\nsummary = "s"\nboards = []\n')
    told = profiles.check(barn)
    for key in ("optim.name", "optim.lr", "train.epochs", "compress.runtimes", "bench.threads"):
        assert f"{barn}: {key}: missing" in told
    assert not any("train.data" in fault or "train.name" in fault for fault in told)


@pytest.mark.parametrize("content", [b"name = ", b"\xff", b"[optim]\n[optim]\n"])
def test_what_is_no_toml_has_one_fault(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "barn.toml"
    path.write_bytes(content)
    (fault,) = profiles.check(path)
    assert fault.startswith(f"{path}: not ")


toml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "lr", "musgd", "sgd", "epochs", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["optim", "train", "compress", "bench", "x"]), toml_values, max_size=4
    )
)
def test_whatever_a_file_holds_it_is_read_or_its_faults_are_named(data: dict[str, Any]) -> None:
    tables = read_tables(data)
    for section in ("optim", "train", "compress", "bench"):
        if section in data and not isinstance(data[section], dict):
            assert any(fault.startswith(f"{section}: ") for fault in tables.faults)
    for optimizer in OPTIMIZERS:
        for value in tables.values(optimizer):
            assert value.key in {f"{s}.{k}" for s in data if s != "x" for k in _keys(data[s])}


def _keys(table: Any) -> set[str]:
    own = set(table) if isinstance(table, dict) else set()
    return own.union(*(_keys(value) for value in table.values())) if own else own


# ---------------------------------------------------------------------------------------- copying


def test_a_copy_keeps_every_comment_and_takes_its_files_name(tmp_path: Path) -> None:
    copied = profiles.copy_to("x86-cpu", tmp_path / 'my "barn" \\d.toml')
    original = profiles.read_text(profiles.find("x86-cpu"))
    lines = copied.read_text().splitlines()
    changed = [
        pair for pair in zip(lines, original.splitlines(), strict=True) if pair[0] != pair[1]
    ]
    assert len(changed) == 1
    assert profiles.check(copied) == ()
    assert tomllib.loads(copied.read_text())["name"] == 'my "barn" \\d'


def test_a_copy_never_overwrites(barn: Path) -> None:
    before = edit(barn, ("imgsz = 256", "imgsz = 192")).read_text()
    with pytest.raises(UsageError, match="exists already"):
        profiles.copy_to("pi4b", barn)
    assert barn.read_text() == before


def test_a_copy_goes_where_it_can_be_loaded_from_or_nowhere(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not end in"):
        profiles.copy_to("pi4b", tmp_path / "barn")
    with pytest.raises(UsageError, match="unknown profile"):
        profiles.copy_to("pi5", tmp_path / "barn.toml")
    with pytest.raises(MusgdError, match="cannot write"):
        profiles.copy_to("pi4b", Path("/proc/barn.toml"))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------- matching


@pytest.mark.parametrize(
    ("host", "name", "made_for"),
    [
        (Host(board="pi4b"), "pi4b", True),
        (Host(board="pi400"), "pi4b", True),
        (Host(board="cm4"), "pi4b", True),
        (Host(board="jetson-nano"), "jetson-nano", True),
        (Host(board="jetson-nano-2gb"), "jetson-nano", True),
        (Host(board="x86-gpu"), "x86-gpu", True),
        (Host(board="x86-cpu"), "x86-cpu", True),
        (Host(board="pi5", arch="aarch64"), "pi4b", False),
        (Host(board="pi3"), "pi4b", False),
        (Host(board="pi-zero2"), "pi4b", False),
        (Host(board="cm5"), "pi4b", False),
        (Host(board="generic-arm64"), "pi4b", False),
        (Host(board="generic", arch="armv7l"), "pi4b", False),
        (Host(board="generic-arm64", arch="aarch64", gpu="NVIDIA GH200"), "x86-gpu", False),
        (Host(board="orin-nano", arch="aarch64", gpu="NVIDIA Orin"), "jetson-nano", False),
        (Host(board="jetson-xavier-nx"), "jetson-nano", False),
        (Host(board="generic", arch="x86_64"), "x86-cpu", False),
        (Host(board="generic", gpu="Intel UHD"), "x86-cpu", False),
        (Host(board="generic", gpu_memory_mb=8192), "x86-gpu", False),
        (Host(board="pi5", arch="x86_64", gpu="NVIDIA RTX 3090"), "pi4b", False),  # MUSGD_BOARD
    ],
)
def test_every_machine_gets_its_own_or_the_nearest(host: Host, name: str, made_for: bool) -> None:
    profile = profiles.match(host)
    assert profile.name == name
    assert profiles.is_made_for(profile, host) is made_for


@given(
    st.builds(
        Host,
        board=st.text(),
        arch=st.none() | st.text(),
        gpu=st.none() | st.text(),
        gpu_memory_mb=st.none() | st.integers(),
    )
)
def test_matching_never_fails(host: Host) -> None:
    assert profiles.match(host).name in SHIPPED


# ---------------------------------------------------------------------------------------- shipping


def test_an_installed_package_finds_the_profiles_it_ships(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = tmp_path / "musgd_cli" / "_profiles"
    shipped.mkdir(parents=True)
    (shipped / "only.toml").touch()
    assert profiles.folder() == repository / "profiles"
    monkeypatch.setattr(profiles, "__file__", str(tmp_path / "musgd_cli" / "profiles.py"))
    assert profiles.names() == ("only",)


def test_a_reason_is_the_comment_above_and_beside(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(
        "# Not of lr.\n\n[optim]\n# Above,\n# in two lines,\nlr = 0.1 # and beside.\n"
        'name = "sgd"\n[optim.sgd]\nlr = 0.2 # another table\n'
    )
    assert profiles.reason(str(file), "optim.lr") == "Above, in two lines, and beside."
    assert profiles.reason(str(file), "optim.sgd.lr") == "another table"
    assert profiles.reason(str(file), "optim.name") is None
    assert profiles.reason(str(file), "train.epochs") is None


@pytest.mark.parametrize("name", profiles.names())
def test_each_profile_says_why_it_takes_its_head_and_its_int8(name: str) -> None:
    for key in ("compress.nms_free", "compress.int8"):
        assert profiles.reason(name, key)
