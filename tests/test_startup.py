"""What the cheap commands must not load: a Pi should answer `musgd doctor` before one looks up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "torch",
    "ultralytics",
    "onnx",
    "onnxruntime",
    "openvino",
    "ncnn",
    "numpy",
    "cv2",
    "matplotlib",
]

RUNNER = """
import json, sys
from musgd_cli.__main__ import main
code = main(sys.argv[2:])
found = [name for name in sys.argv[1].split() if name in sys.modules]
sys.stderr.write("\\n" + json.dumps([code, found]))
"""


def loaded(arguments: str, modules: list[str], cwd: Path) -> list[str]:
    """Run a command to its good end and return which of ``modules`` it has imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, " ".join(modules), *arguments.split()],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    code, found = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    assert done.stdout
    return found


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "train --help",
        "predict --help",
        "doctor",
        "doctor --json",
        "plan",
        "plan --json",
        "profiles list",
    ],
)
def test_nothing_heavy_is_loaded(arguments: str, tmp_path: Path) -> None:
    assert loaded(arguments, HEAVY, tmp_path) == []


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_does_not_load_pydantic(arguments: str, tmp_path: Path) -> None:
    assert loaded(arguments, ["pydantic", "yaml", "psutil", "pynvml"], tmp_path) == []


def test_importing_the_optimizer_costs_no_more_than_torch() -> None:
    pytest.importorskip("torch")
    code = (
        "import musgd_cli.optim, sys;"
        "print([n for n in ('ultralytics', 'rich', 'typer', 'pydantic') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_help_costs_little_more_than_its_libraries(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, repository / "benchmarks/startup.py"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
