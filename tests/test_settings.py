"""Settings: who wins, what they beat, and every fault in plain words, all at once."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from musgd_cli.errors import ExitCode, UsageError
from musgd_cli.records import Beaten, Host, Plan
from musgd_cli.sections import KEYS, OPTIMIZERS, accept, allowed, from_text, optimizer_has
from musgd_cli.settings import NOT_GIVEN, change, parse_assignments, settle

HERE = Host(board="x86-cpu", arch="x86_64")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plan(
    toml: str | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    **more: Any,
) -> Plan:
    if toml is not None:
        Path("musgd.toml").write_text(toml)
    return settle(host=HERE, flags=flags or {}, environ=environ or {}, **more)


def faults(*args: Any, **more: Any) -> list[str]:
    """The faults that settling names, one a line."""
    with pytest.raises(UsageError) as caught:
        plan(*args, **more)
    assert caught.value.exit_code == ExitCode.USAGE
    assert "musgd profiles show" in caught.value.mend
    first, *rest = caught.value.what.splitlines()
    if not rest:
        return [first]
    assert first == f"{len(rest)} settings are wrong:"
    return [line.strip() for line in rest]


# ---------------------------------------------------------------------------------- precedence

SOURCES = ("--epochs", "MUSGD_TRAIN__EPOCHS", "musgd.toml", "profile x86-cpu")


@pytest.mark.parametrize(
    "given_by", [set(some) for n in range(4) for some in itertools.combinations(SOURCES[:3], n)]
)
def test_the_strongest_source_wins_and_names_what_it_beat(given_by: set[str]) -> None:
    settled = plan(
        toml="[train]\nepochs = 3\n" if "musgd.toml" in given_by else None,
        environ={"MUSGD_TRAIN__EPOCHS": "2"} if "MUSGD_TRAIN__EPOCHS" in given_by else {},
        flags={"train.epochs": 1 if "--epochs" in given_by else None},
        spelling={"train.epochs": "--epochs"},
    ).settings["train.epochs"]
    values = dict(zip(SOURCES, (1, 2, 3, 100), strict=True))
    expected = [Beaten(value=values[s], source=s) for s in SOURCES if s in {*given_by, SOURCES[3]}]
    assert [Beaten(value=settled.value, source=settled.source), *settled.over] == expected


def test_a_flag_without_a_spelling_is_named_as_set() -> None:
    assert plan(flags={"train.batch": 4}).settings["train.batch"].source == "--set train.batch"


def test_every_key_is_settled_and_typed() -> None:
    for optimizer in OPTIMIZERS:
        settled = plan(flags={"optim.name": optimizer})
        meant = [
            key
            for key in KEYS
            if not key.startswith("optim.") or optimizer_has(optimizer, key.partition(".")[2])
        ]
        assert list(settled.settings) == meant
        assert settled.optim.name == optimizer
        assert settled.train.epochs == 100
        assert settled.compress.runtimes == ("openvino", "onnxruntime")
        assert settled.bench.threads == 0


def test_what_nobody_gives_says_so() -> None:
    settled = plan()
    for key in ("train.data", "train.name"):
        assert settled.settings[key].value is None
        assert settled.settings[key].source == NOT_GIVEN


def test_the_plan_is_the_same_after_a_round_trip() -> None:
    settled = plan("[compress]\nruntimes = ['ncnn']\n", flags={"train.seed": 3})
    assert Plan.model_validate_json(settled.model_dump_json()) == settled


# ------------------------------------------------------------------------------- the optimizer


def test_the_optimizers_own_table_holds_once_the_optimizer_is_settled() -> None:
    settled = plan(environ={"MUSGD_OPTIM__NAME": "adamw"})
    assert settled.settings["optim.lr"].value == 0.0042
    assert settled.settings["optim.lr"].source == "profile x86-cpu [optim.adamw]"
    assert "optim.adapt_factor" not in settled.settings
    assert "optim.nesterov" not in settled.settings


def test_in_the_file_the_optimizers_own_table_beats_the_common_one() -> None:
    text = "[optim]\nlr = 0.5\nname = 'sgd'\n[optim.sgd]\nlr = 0.25\n[optim.musgd]\nlr = 0.125\n"
    settled = plan(text)
    assert settled.settings["optim.lr"].value == 0.25
    assert settled.settings["optim.lr"].source == "musgd.toml [optim.sgd]"
    assert plan(flags={"optim.name": "musgd"}).value("optim.lr") == 0.125
    assert plan(flags={"optim.name": "adamw"}).value("optim.lr") == 0.5


@pytest.mark.parametrize(
    ("toml", "flags", "lr", "source"),
    [
        ("", {}, 0.02, "musgd.toml [optim.sgd]"),
        ("", {"train.model": "cells.pt"}, 0.03, "musgd.toml [optim.sgd.fine-tuning]"),
        ("", {"train.model": "cells.PT", "optim.lr": 0.5}, 0.5, "--set optim.lr"),
        ('train.model = "cells.pt"', {}, 0.03, "musgd.toml [optim.sgd.fine-tuning]"),
        ('train.model = "cells.pt"', {"train.model": "a.yaml"}, 0.02, "musgd.toml [optim.sgd]"),
    ],
)
def test_a_table_for_fine_tuning_holds_where_training_starts_from_weights(
    toml: str, flags: dict[str, Any], lr: float, source: str
) -> None:
    tables = "[optim.sgd]\nlr = 0.02\n[optim.sgd.fine-tuning]\nlr = 0.03\n"
    settled = plan(f"{toml}\n{tables}", {**flags, "optim.name": "sgd"}).settings["optim.lr"]
    assert (settled.value, settled.source) == (lr, source)


def test_a_fault_below_a_table_for_fine_tuning_names_the_whole_table() -> None:
    assert faults("[optim.musgd.fine-tuning]\nlr = -1\nsgd = 2") == [
        "musgd.toml: optim.musgd.fine-tuning.lr: -1 is not a number above 0",
        "musgd.toml: optim.musgd.fine-tuning.sgd: unknown key",
    ]
    assert faults("[optim.musgd]\nfine-tuning = 3") == [
        "musgd.toml: optim.musgd.fine-tuning: 3 is not a table"
    ]
    assert faults("[optim.musgd.fine_tuning]\nlr = 0.1") == [
        "musgd.toml: optim.musgd.fine_tuning: unknown key (did you mean fine-tuning?)"
    ]


def test_a_value_for_another_optimizer_is_not_taken_in_silence() -> None:
    told = faults(
        "[optim]\nadapt_factor = 0.2\n[optim.musgd]\nnorm_scope = 'global'\n",
        flags={"optim.name": "sgd", "optim.norm_scope": "tensor"},
        environ={"MUSGD_OPTIM__LR_IN_BUFFER": "true"},
        spelling={"optim.name": "--optimizer"},
    )
    assert told == [
        (
            "musgd.toml: optim.adapt_factor: the optimizer sgd has none; "
            "move it to the table of one that has, such as [optim.musgd]"
        ),
        (
            "--set optim.norm_scope: the optimizer sgd has no norm_scope, unlike musgd and "
            "musgd-article"
        ),
        (
            "MUSGD_OPTIM__LR_IN_BUFFER: the optimizer sgd has no lr_in_buffer, unlike musgd and "
            "musgd-article"
        ),
    ]


@pytest.mark.parametrize(
    ("toml", "environ", "flags", "what", "mend"),
    [
        (
            None,
            {},
            {"optim.norm_scope": "global"},
            (
                "second_moment=rowcol has no norm_scope=global: optim.norm_scope is from "
                "--set optim.norm_scope, optim.second_moment from profile x86-cpu [optim.musgd]"
            ),
            "--optimizer musgd-article --set optim.norm_scope=global",
        ),
        (
            None,
            {"MUSGD_OPTIM__LR_IN_BUFFER": "true"},
            {},
            (
                "second_moment=rowcol has no lr_in_buffer=true: optim.lr_in_buffer is from "
                "MUSGD_OPTIM__LR_IN_BUFFER, "
            ),
            "--optimizer musgd-article --set optim.lr_in_buffer=true",
        ),
        (
            "[optim.musgd]\ndecay_in_norm = true\n",
            {},
            {},
            (
                "second_moment=rowcol has no decay_in_norm=true: optim.decay_in_norm is from "
                "musgd.toml [optim.musgd], "
            ),
            "--optimizer musgd-article --set optim.decay_in_norm=true",
        ),
        (
            "[optim]\nmomentum = 0.0\n",
            {},
            {"optim.name": "sgd"},
            (
                "nesterov=true needs a momentum, not momentum=0: optim.nesterov is from "
                "profile x86-cpu [optim.sgd], optim.momentum from musgd.toml"
            ),
            "--set optim.nesterov=false",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused_with_their_sources(
    toml: str | None, environ: dict[str, str], flags: dict[str, Any], what: str, mend: str
) -> None:
    with pytest.raises(UsageError) as caught:
        plan(toml, flags, environ)
    assert caught.value.what.startswith(what)
    assert caught.value.mend == mend


def test_all_contradictions_are_told_at_once_and_one_line_mends_them() -> None:
    wanted = {"optim.norm_scope": "global", "optim.lr_in_buffer": True, "optim.momentum": 0.0}
    with pytest.raises(UsageError) as caught:
        plan(flags=wanted)
    assert caught.value.what.startswith("3 settings contradict another:\n  ")
    name, *assigned = caught.value.mend.replace("--optimizer ", "").split(" --set ")
    mended = plan(flags={**wanted, **parse_assignments(assigned), "optim.name": name})
    assert (mended.optim.norm_scope, mended.optim.nesterov) == ("global", False)


def test_what_another_optimizer_cannot_be_is_no_contradiction() -> None:
    text = "[optim]\nmomentum = 0.0\n[optim.musgd]\nnorm_scope = 'global'\n"
    assert plan(text, {"optim.name": "adamw"}).optim.momentum == 0
    assert plan(text, {"optim.name": "muon-sgd"}).optim.nesterov
    article = plan("[optim]\nnorm_scope = 'global'\n", {"optim.name": "musgd-article"})
    assert article.optim.norm_scope == "global"


def test_a_changed_plan_contradicts_itself_no_more_than_a_settled_one() -> None:
    with pytest.raises(UsageError, match=r"norm_scope=global: optim.norm_scope is from --set"):
        change(plan(), {"optim.norm_scope": ("global", "--set optim.norm_scope")})


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "optim.name": st.sampled_from(OPTIMIZERS),
            "optim.momentum": st.sampled_from([0.0, 0.5]),
            "optim.nesterov": st.booleans(),
            "optim.second_moment": st.sampled_from(["none", "rowcol"]),
            "optim.norm_scope": st.sampled_from(["tensor", "global"]),
            "optim.lr_in_buffer": st.booleans(),
            "optim.decay_in_norm": st.booleans(),
            "optim.adapt_factor": st.sampled_from([0.0, 0.1, "auto"]),
        },
    )
)
def test_whatever_settles_can_be_built(flags: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    from musgd_cli.train import optimizers

    try:
        settled = settle(host=HERE, flags=flags, environ={}).optim
    except UsageError:
        return
    if settled.name != "muon-sgd":  # Ultralytics builds its own
        optimizers.build(settled, torch.nn.Linear(2, 2))


# --------------------------------------------------------------------------- profile and target


def test_the_target_gives_imgsz_compress_and_bench() -> None:
    settled = plan(target="pi4b", profile="x86-gpu")
    assert (settled.profile, settled.target) == ("x86-gpu", "pi4b")
    imgsz = settled.settings["train.imgsz"]
    assert (imgsz.value, imgsz.source) == (256, "profile pi4b")
    assert imgsz.over == (Beaten(value=640, source="profile x86-gpu"),)
    for key, value in settled.settings.items():
        section = key.partition(".")[0]
        if section in ("compress", "bench"):
            assert value.source == "profile pi4b", key
        elif key not in ("train.imgsz", "train.data", "train.name", "train.distill"):
            assert value.source.startswith("profile x86-gpu"), key
    assert settled.compress.runtimes == ("ncnn", "litert")


def test_a_flag_beats_the_targets_imgsz() -> None:
    imgsz = plan(target="pi4b", flags={"train.imgsz": 320}).settings["train.imgsz"]
    assert imgsz.value == 320
    assert [beaten.source for beaten in imgsz.over] == ["profile pi4b", "profile x86-cpu"]


def test_by_default_both_are_this_machines() -> None:
    settled = plan()
    assert (settled.profile, settled.target) == ("x86-cpu", "x86-cpu")
    assert settled.settings["train.imgsz"].over == ()


def test_the_file_may_name_both_and_an_option_beats_it() -> None:
    settled = plan("profile = 'x86-gpu'\ntarget = 'pi4b'\n")
    assert (settled.profile, settled.target) == ("x86-gpu", "pi4b")
    settled = plan(target="jetson-nano")
    assert (settled.profile, settled.target) == ("x86-gpu", "jetson-nano")


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"'pi4' \(did you mean pi4b\?\)"):
        plan("target = 'pi4'\n")


# --------------------------------------------------------------------------------------- faults


def test_all_faults_of_the_file_are_told_at_once_with_their_path() -> None:
    told = faults(
        """
        epochs = 3
        profil = "pi4b"
        target = 4
        bench = "long"
        [train]
        epohcs = 5
        batch = "8"
        imgsz = 100
        lr = 0.1
        amp = "fp17"
        [optim]
        adamw = 3
        [optim.musg]
        lr = 1
        [optim.sgd]
        adapt_factor = 0.1
        lrr = 1
        name = "sgd"
        nesterov = "yes"
        [compress]
        runtimes = ["ncnn", "tensorflow"]
        calib = inf
        """
    )
    assert told == [
        "musgd.toml: optim.adamw: 3 is not a table",
        "musgd.toml: optim.musg: unknown optimizer (did you mean musgd?)",
        "musgd.toml: optim.sgd.adapt_factor: sgd has no adapt_factor",
        "musgd.toml: optim.sgd.lrr: unknown key (did you mean lr?)",
        "musgd.toml: optim.sgd.name: the name stands in [optim]",
        "musgd.toml: optim.sgd.nesterov: 'yes' is not true or false",
        "musgd.toml: train.epohcs: unknown key (did you mean train.epochs?)",
        "musgd.toml: train.batch: '8' is not a whole number above 0",
        "musgd.toml: train.imgsz: 100 is not a whole number of 32 or more and a multiple of 32",
        "musgd.toml: train.lr: unknown key (did you mean optim.lr?)",
        "musgd.toml: train.amp: 'fp17' is not one of fp32, fp16, bf16 (did you mean fp16?)",
        (
            "musgd.toml: compress.runtimes: [ncnn, tensorflow] is not a list of one or more of "
            "onnxruntime, openvino, ncnn, tensorrt, litert, null"
        ),
        "musgd.toml: compress.calib: inf is not a whole number above 0",
        "musgd.toml: bench: 'long' is not a table",
        "musgd.toml: epochs: unknown key; it belongs in [train]",
        "musgd.toml: profil: unknown key (did you mean profile?)",
        "musgd.toml: target: 4 is not a profile's name or path",
    ]


def test_faults_of_all_sources_are_told_at_once() -> None:
    told = faults(
        "[train]\nepochs = 0\n",
        environ={"MUSGD_TRAIN__BATCH": "many"},
        flags={"optim.lr": -1.0, "train.seeds": 1},
    )
    assert told == [
        "musgd.toml: train.epochs: 0 is not a whole number above 0",
        "MUSGD_TRAIN__BATCH: 'many' is not a whole number above 0",
        "--set optim.lr: -1.0 is not a number above 0",
        "--set train.seeds: unknown key (did you mean train.seed?)",
    ]


def test_a_bad_value_is_told_even_where_a_flag_would_beat_it() -> None:
    assert faults("[train]\nepochs = 0\n", flags={"train.epochs": 3})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[train\n", r"not TOML: .* \(at line 1, column 7\)"),
        (b"[train]\nepochs = 1\nepochs = 2\n", "not TOML: .*line 3"),
        (b"\xff\xfe", "not UTF-8 text"),
    ],
)
def test_what_is_no_toml(content: bytes, said: str) -> None:
    Path("musgd.toml").write_bytes(content)
    (fault,) = faults()
    assert re.fullmatch(f"musgd.toml: {said}.*", fault)


def test_a_folder_in_the_files_place() -> None:
    Path("musgd.toml").mkdir()
    assert faults() == ["musgd.toml: cannot be read: Is a directory"]


def test_a_file_that_is_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no .*other\.toml"):
        plan(file=tmp_path / "other.toml")
    (tmp_path / "other.toml").write_text("[train]\nbatch = 2\n")
    settled = plan("[train]\nbatch = 4\n", file=tmp_path / "other.toml").settings["train.batch"]
    assert (settled.value, settled.source) == (2, str(tmp_path / "other.toml"))


# ----------------------------------------------------------------------------------- environment


def test_the_environment_is_read_by_each_keys_type() -> None:
    settled = plan(
        environ={
            "MUSGD_TRAIN__BATCH": " 4 ",
            "MUSGD_OPTIM__LR": "1e-3",
            "MUSGD_OPTIM__NESTEROV": "false",
            "MUSGD_OPTIM__ADAPT_FACTOR": "auto",
            "MUSGD_COMPRESS__RUNTIMES": "ncnn, onnxruntime",
            "MUSGD_TRAIN__DATA": "a b.yaml",
        }
    )
    assert settled.train.batch == 4
    assert settled.optim.lr == 1e-3
    assert settled.optim.nesterov is False
    assert settled.optim.adapt_factor == "auto"
    assert settled.compress.runtimes == ("ncnn", "onnxruntime")
    assert settled.train.data == "a b.yaml"


@pytest.mark.parametrize(
    "name", ["MUSGD_BOARD", "MUSGD_SHARED", "MUSGD_TORCH_INDEX", "MUSGD_EPOCHS", "XMUSGD_A__B"]
)
def test_a_name_without_a_double_underscore_is_no_setting(name: str) -> None:
    assert plan(environ={name: "nonsense"}) == plan()


def test_an_empty_variable_is_no_setting() -> None:
    assert plan(environ={"MUSGD_TRAIN__BATCH": ""}) == plan()


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("MUSGD_TRAIN__EPOHCS", "MUSGD_TRAIN__EPOCHS"),
        ("MUSGD_TRAIN__LR", "MUSGD_OPTIM__LR"),
        ("MUSGD_TRIAN__BATCH", "MUSGD_TRAIN__BATCH"),
        ("MUSGD_OPTIM__MUSGD__LR", "MUSGD_OPTIM__LR"),
        ("MUSGD__X", None),
    ],
)
def test_a_misspelt_variable_names_the_nearest(name: str, nearest: str | None) -> None:
    hint = f" (did you mean {nearest}?)" if nearest else ""
    assert faults(environ={name: "1"}) == [f"{name}: unknown setting{hint}"]


# ------------------------------------------------------------------------------------------ --set


def test_assignments_are_typed() -> None:
    assert parse_assignments(
        ["optim.lr=.02", "train.data=a=b.yaml", "compress.nms_free=yes", "train.epochs = 3"]
    ) == {
        "optim.lr": 0.02,
        "train.data": "a=b.yaml",
        "compress.nms_free": True,
        "train.epochs": 3,
    }


def test_all_faults_of_assignments_are_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_assignments(
            ["lr=1", "train.epochs", "train.batch=x", "train.seed=1", "train.seed=2", "train.data="]
        )
    assert [line.strip() for line in caught.value.what.splitlines()[1:]] == [
        "--set lr=1: unknown key 'lr' (did you mean optim.lr?)",
        "--set train.epochs: write KEY=VALUE, such as optim.lr=0.02",
        "--set train.batch: 'x' is not a whole number above 0",
        "--set train.seed=2: train.seed is given twice",
        "--set train.data: it is empty",
    ]


def test_no_assignments() -> None:
    assert parse_assignments([]) == {}


# ------------------------------------------------------------------------------------ properties


@pytest.mark.parametrize("key", KEYS)
def test_every_key_says_what_it_accepts(key: str) -> None:
    words = allowed(key)
    assert words
    assert not any(sign in words for sign in ("Literal", "typing", "Ge(", "None", "<class"))


@given(key=st.sampled_from(KEYS), text=st.text())
@example(key="optim.lr", text="nan")
@example(key="optim.adapt_factor", text="inf")
@example(key="train.device", text="gpu")
def test_text_is_either_a_value_or_refused_in_plain_words(key: str, text: str) -> None:
    try:
        value = from_text(key, text)
    except ValueError as error:
        assert "pydantic" not in str(error)
        assert allowed(key) in str(error) or "empty" in str(error)
    else:
        assert accept(key, value) == value  # what the text gives, the file and flags may hold too
        assert not isinstance(value, float) or math.isfinite(value)


@given(st.sampled_from(KEYS), st.none() | st.booleans() | st.floats() | st.integers() | st.text())
def test_a_value_is_accepted_as_it_is_or_refused(key: str, value: Any) -> None:
    try:
        accepted = accept(key, value)
    except ValueError:
        return
    assert accepted == value
    assert isinstance(accepted, bool) == isinstance(value, bool)
