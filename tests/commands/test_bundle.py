"""``musgd bundle``: what it packs runs without musgd, and finds what `musgd predict` finds."""

from __future__ import annotations

import ast
import json
import os
import pty
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest
import tiny_artifact as tiny

from musgd_cli.__main__ import main
from musgd_cli.predict import bundle
from musgd_cli.records import Artifact

MAKERS: dict[str, tuple[Callable[..., Artifact], tuple[str, ...]]] = {
    "onnxruntime": (tiny.make_onnx, ("onnx", "onnxruntime")),
    "openvino": (tiny.make_openvino, ("onnx", "openvino")),
    "ncnn": (tiny.make_ncnn, ("ncnn",)),
    "litert": (tiny.make_litert, ("ai_edge_litert",)),
}

# As on a board: these are not there, and musgd_cli is what lies beside predict.py.
BOARD = """
import importlib.abc, runpy, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("pydantic", "typer", "rich", "yaml", "psutil", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
sys.path = [path for path in sys.path if path != sys.argv[1]]
script = sys.argv[2]
sys.path.insert(0, script.rpartition("/")[0])
sys.argv[:] = sys.argv[2:]
try:
    runpy.run_path(script, run_name="__main__")
finally:
    import musgd_cli
    assert musgd_cli.__file__.startswith(sys.path[0]), musgd_cli.__file__
"""


@pytest.fixture(params=sorted(MAKERS))
def runtime(request: pytest.FixtureRequest) -> str:
    for module in MAKERS[request.param][1]:
        pytest.importorskip(module)
    return request.param


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to call musgd in, with three images of which one is damaged."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    cv2.imwrite("in/a.png", tiny.draw([(0, 2), (9, 0)]))
    cv2.imwrite("in/b.png", tiny.draw([(63, 1)]))
    Path("in/c.png").write_bytes(b"no picture")
    return tmp_path


def on_the_board(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    repository = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", BOARD, repository, str(script), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def timeless(printed: str) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in printed.splitlines()]
    return [{key: line[key] for key in line if not key.endswith("_ms")} for line in lines]


def test_a_bundle_finds_what_predict_finds(
    runtime: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(f"runs/r/artifacts/x-{runtime}")
    MAKERS[runtime][0](folder)
    assert main(["bundle", str(folder), "--out", "packed"]) == 0
    arguments = ("in", "--json", "--threads", "1")
    capsys.readouterr()
    assert main(["predict", str(folder), *arguments]) == 1
    ours = capsys.readouterr().out
    done = on_the_board(workshop / "packed/predict.py", *arguments)
    assert done.returncode == 1, done.stderr
    assert timeless(done.stdout) == timeless(ours)
    assert len(timeless(ours)) == 2
    assert "error: cannot read image in/c.png" in done.stderr
    assert "1 image unreadable" in done.stderr
    drawn = {file.name: file.read_bytes() for file in Path("predictions/in").iterdir()}
    assert drawn == {file.name: file.read_bytes() for file in Path("runs/r/predict/in").iterdir()}


def test_it_speaks_to_people_too(workshop: Path) -> None:
    pytest.importorskip("ncnn")
    tiny.make_ncnn(Path("model"))
    main(["bundle", "model", "--out", "packed", "-q"])
    script = workshop / "packed/predict.py"
    done = on_the_board(script, "in/a.png", "--no-save")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "in/a.png: 1 blue, 1 red"
    refused = on_the_board(script, "nowhere.png")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.splitlines()[0] == "error: nowhere.png does not exist"
    assert on_the_board(script, "in", "--conf", "7").returncode == 2
    assert on_the_board(script, "--help").stdout.startswith("usage: predict.py")
    (workshop / "packed/model/model.ncnn.bin").write_bytes(b"short")
    damaged = on_the_board(script, "in/a.png")
    assert damaged.returncode == 1
    assert "sha256" in damaged.stderr


@pytest.fixture
def packed(workshop: Path) -> Path:
    """The script of a bundle."""
    pytest.importorskip("ncnn")
    tiny.make_ncnn(Path("model"))
    assert main(["bundle", "model", "--out", "packed it", "-q"]) == 0
    return workshop / "packed it/predict.py"


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ((), "the following arguments are required: source"),
        (("in", "--max-det", "0"), "argument --max-det: 0 is less than 1"),
        (("in", "--conf", "nan"), "argument --conf: nan is not between 0 and 1"),
        (("in", "--conf", "x"), "argument --conf: x is no float"),
        (("in", "--threads", "-1"), "argument --threads"),
        (("in", "--nonsense"), "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_words_end_with_two_lines(arguments: tuple[str, ...], what: str, packed) -> None:
    done = on_the_board(packed, *arguments)
    assert done.returncode == 2
    error, mend = done.stderr.splitlines()
    assert error.startswith(f"error: {what}")
    assert mend == "mend: predict.py --help"


def test_a_reader_that_has_seen_enough_is_no_failure(packed: Path, workshop: Path) -> None:
    for i in range(30):
        cv2.imwrite(f"in/{i}.png", tiny.draw([(0, 2)]))
    command = [sys.executable, str(packed), "in", "--json", "--no-save"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr is not None
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=60), "Traceback" in err) == (0, False)


def test_a_full_disk_is_told(packed: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, str(packed), "in/a.png", "--no-save"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "error: No space left on device\nmend: free some space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_name_that_is_no_utf_8_is_said_all_the_same(packed: Path) -> None:
    Path("in/a.png").rename(b"in/\xff.png".decode("utf-8", "surrogateescape"))
    done = on_the_board(packed, "in", "--no-save")
    assert done.stdout.splitlines()[0] == "in/b.png: 1 green"
    assert r"in/\udcff.png: 1 blue, 1 red" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_person_sees_the_rate(packed: Path) -> None:
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter.fourcc(*"MJPG"), 20, (64, 64))
    for _ in range(20):
        writer.write(tiny.draw([(0, 2)]))
    writer.release()
    leader, follower = pty.openpty()
    done = subprocess.run(
        [sys.executable, str(packed), "clip.avi", "--json", "--no-save"],
        stdout=subprocess.PIPE,
        stderr=follower,
        check=True,
    )
    os.close(follower)
    assert len(timeless(done.stdout.decode())) == 20
    assert b"of 20" in os.read(leader, 65536)
    os.close(leader)


def test_files_are_copied_without_opencv(
    workshop: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_ncnn(Path("model"))
    code = (
        "import sys; sys.modules['cv2'] = None\n"
        "from musgd_cli.__main__ import main\n"
        "sys.exit(main(['bundle', 'model', '--out', 'packed']))"
    )
    repository = str(Path(__file__).parents[2])
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": repository}
    )
    assert Path("packed/predict.py").is_file()


def test_without_its_engine_the_requirements_are_named(packed: Path) -> None:
    (packed.parent / "ncnn.py").write_text("raise ModuleNotFoundError('gone', name='ncnn')")
    done = on_the_board(packed, "in/a.png")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        "error: ncnn is not installed: there is no module ncnn",
        f"mend: {sys.executable} -m pip install -r '{packed.parent}/requirements.txt'",
    ]


def test_a_zip_is_the_same_bytes_each_time_and_takes_a_free_name(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ncnn")
    for maker in ("anna", "ben"):
        # Where it was made is no part of it.
        tiny.make_ncnn(Path("runs/r/artifacts/tiny"), path=f"/home/{maker}")
        assert main(["bundle", "r", "--json"]) == 0
        printed = json.loads(capsys.readouterr().out)
    first, second = sorted(Path("runs/r/bundles").iterdir())
    assert {first.name, second.name} == {"tiny.zip", "tiny-2.zip"}
    assert printed["path"] == "runs/r/bundles/tiny-2.zip"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        archive.extractall("unpacked")
    done = on_the_board(workshop / "unpacked/tiny/predict.py", "in/a.png", "--json", "--no-save")
    assert len(json.loads(done.stdout)["boxes"]) == 2
    readme = Path("unpacked/tiny/README.txt").read_text()
    assert f"pip install '{printed['requires'][0]}'" in readme
    assert "AGPL" in readme
    assert Path("unpacked/tiny/LICENSE").read_text().startswith("                    GNU AFFERO")


@pytest.mark.parametrize("out", ["packed", "packed.zip"])
def test_nothing_is_overwritten(
    out: str, workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_ncnn(Path("model"))
    Path(out).write_text("mine")
    assert main(["bundle", "model", "--out", out]) == 2
    assert f"{out} exists already" in capsys.readouterr().err
    assert Path(out).read_text() == "mine"


def test_a_model_without_an_engine_or_with_damage_is_refused(
    workshop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.make_null(Path("model"))
    assert main(["bundle", "model"]) == 3
    tiny.describe(Path("model"), "tensorrt", ())
    assert main(["bundle", "model"]) == 3
    tiny.make_ncnn(Path("model"), sha256="0" * 64)
    assert main(["bundle", "model"]) == 1
    err = capsys.readouterr().err
    assert "a null model cannot be bundled" in err
    assert "a tensorrt model cannot be bundled" in err
    assert "sha256" in err
    assert not Path("runs").exists()


def test_help_begins_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "--help"]) == 0
    assert "musgd bundle runs/demo/artifacts/" in capsys.readouterr().out


# ------------------------------------------------------------------------------- the copied files


def copied() -> list[str]:
    engines = (f"runtime/{runtime}.py" for runtime in bundle.REQUIRES)
    more = (name for names in bundle.ENGINE_FILES.values() for name in names)
    return [*bundle.LEAN_FILES, *engines, *more]


# Calls and names that came after Python 3.9 and that an eye passes over.
LATER_KEYWORDS = {("zip", "strict"), ("dataclass", "slots"), ("dataclass", "kw_only")}
LATER_NAMES = {"Self", "assert_never", "StrEnum", "UTC", "batched", "pairwise", "tomllib", "aiter"}


def later_than_3_9(tree: ast.Module) -> list[str]:
    """Name what Python 3.9 would stumble on; it evaluates no annotation, nor these imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        for name in ("annotation", "returns")
        for inner in ast.walk(getattr(node, name, None) or ast.Module([], []))
    }
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Match | ast.TryStar):
            found.append(type(node).__name__)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            sides = {ast.unparse(side) for side in (node.left, node.right)}
            if sides & {"None", "int", "str", "float", "bytes", "Path"}:
                found.append(ast.unparse(node))
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            keywords = {(called, keyword.arg) for keyword in node.keywords}
            found += [f"{name}({word}=)" for name, word in keywords & LATER_KEYWORDS]
            if called == "int.from_bytes" and len(node.args) < 2:
                found.append("int.from_bytes without its byte order")
        if isinstance(node, ast.With) and any(
            isinstance(item.context_expr, ast.Tuple) for item in node.items
        ):
            found.append("with of several in brackets")
        name = getattr(node, "id", None) or getattr(node, "attr", None)
        if isinstance(node, ast.alias):
            name = node.name
        if name in LATER_NAMES:
            found.append(name)
    return found


@pytest.mark.parametrize("name", copied())
def test_the_files_run_on_python_3_9(name: str, repository: Path) -> None:
    source = (repository / "musgd_cli" / name).read_text("utf-8")
    tree = ast.parse(source, feature_version=bundle.PYTHON)
    assert later_than_3_9(tree) == []
    if any(isinstance(node, ast.AnnAssign | ast.arg) for node in ast.walk(tree)):
        assert "from __future__ import annotations" in source


@pytest.mark.parametrize(
    "line",
    [
        "zip(a, b, strict=True)",
        "x = int | None",
        "match x:\n    case 1: pass",
        "from typing import Self",
        "int.from_bytes(b'ab')",
        "datetime.UTC",
    ],
)
def test_what_is_newer_is_seen(line: str) -> None:
    assert later_than_3_9(ast.parse(line))


def test_requirements_are_those_of_the_extras(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for runtime, extra in {"openvino": "openvino", "ncnn": "ncnn", "litert": "litert"}.items():
        assert bundle.REQUIRES[runtime] in extras[extra]
    assert bundle.ALWAYS_REQUIRES[0] in extras["onnx"]
