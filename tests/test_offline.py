"""The main job on a tiny set: nothing is asked of the network, nothing is written beside inputs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

for module in ("torch", "ultralytics", "onnxruntime", "openvino", "nncf", "ncnn", "torch_pruning"):
    pytest.importorskip(module)

# Python starts this in every process of the job, the bench workers included.
WITNESS = """
import os, sys

def witness(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        family = getattr(arguments[0], "family", None)
        if family is None or family.name != "AF_UNIX":
            with open(os.environ["WITNESS_LOG"], "a") as log:
                log.write(f"{event} {arguments[1:]!r} in {sys.argv}\\n")

sys.addaudithook(witness)
"""


def draw_set(folder: Path) -> Path:
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            image[20:44, 20:44] = 255 * (index % 2)
            cv2.imwrite(str(folder / "images" / split / f"{index}.png"), image)
            label = f"{index % 2} 0.5 0.5 0.375 0.375\n"
            (folder / "labels" / split / f"{index}.txt").write_text(label)
    yaml = folder / "squares.yaml"
    yaml.write_text("train: images/train\nval: images/val\nnames: [dark, light]\n")
    return yaml


def fingerprint(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder",
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory):
    """Run every verb without a route to anywhere, also from given weights."""
    root = tmp_path_factory.mktemp("offline")
    data = draw_set(root / "given" / "set")
    work = root / "work"
    work.mkdir()
    (root / "witness").mkdir()
    (root / "witness" / "sitecustomize.py").write_text(WITNESS)
    environment = {
        **os.environ,
        "PYTHONPATH": str(root / "witness"),
        "WITNESS_LOG": str(root / "witness" / "log"),
        "HOME": str(root / "home"),
        "XDG_CACHE_HOME": str(root / "home" / "cache"),
        "OMP_NUM_THREADS": "1",
    }
    alone = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        alone = []  # the audit hook still sees every attempt

    def musgd(*arguments: str) -> dict:
        done = subprocess.run(
            [*alone, sys.executable, "-m", "musgd_cli", *arguments, "--json"],
            cwd=work,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    short = ["--epochs", "1", "--imgsz", "64", "--batch", "4", "--set", "train.threads=1"]
    before_data = fingerprint(data.parent)
    first = musgd("train", "--data", str(data), "--name", "first", *short)
    # The weights now count as given: they move beside the set, out of the run.
    given = root / "given" / "weights"
    given.mkdir()
    shutil.copy(work / "runs" / "first" / first["weights"], given / "start.pt")
    before_weights = fingerprint(given)
    musgd("train", "--data", str(data), "--model", str(given / "start.pt"), "--name", "t", *short)
    exported = musgd("export", "runs/t", "--int8", "--target", "x86-cpu", "--calib", "4")
    musgd("export", str(given / "start.pt"), "--imgsz", "64", "--target", "x86-cpu")
    boards = ["--target", "pi4b,jetson-nano,x86-gpu", "--out", "boards"]
    musgd("export", "runs/t", "--int8", "--calib", "4", *boards)
    quick = ["--set", "bench.duration_s=0.2", "--set", "bench.warmup_s=0.1"]
    musgd("prune", "runs/t", "--ratio", "0.2", "--epochs", "1", *quick)
    for artifact in exported["artifacts"]:
        found = musgd("predict", artifact["path"], str(data.parent / "images/val/0.png"))
        assert found["width"] == 64
    bundle = musgd("bundle", exported["artifacts"][0]["path"])
    assert (work / bundle["path"]).is_file()
    benched = musgd("bench", "runs/t", "--threads", "1", "--repeats", "1", *quick)
    log = root / "witness" / "log"
    return {
        "attempts": log.read_text() if log.exists() else "",
        "data": (before_data, fingerprint(data.parent)),
        "weights": (before_weights, fingerprint(given)),
        "exported": exported,
        "benched": benched,
    }


def test_nothing_is_asked_of_the_network(job):
    assert job["attempts"] == ""


def test_nothing_is_written_beside_the_data(job):
    before, after = job["data"]
    assert after == before


def test_nothing_is_written_beside_the_weights(job):
    before, after = job["weights"]
    assert after == before


def test_every_artifact_is_benched_as_what_was_built(job):
    built = {a["sha256"]: (a["runtime"], a["precision"]) for a in job["exported"]["artifacts"]}
    benched = {
        r["artifact_sha256"]: (r["runtime"], r["precision"]) for r in job["benched"]["reports"]
    }
    assert benched == built
    assert ("openvino", "int8") in built.values()
    assert ("onnxruntime", "fp32") in built.values()


def test_a_figure_is_measured_or_null(job):
    for report in job["benched"]["reports"]:
        assert report["n"] > 0
        assert report["n_images"] == 4
        assert report["latency_ms"]["min"] <= report["latency_ms"]["p50"]
        assert report["latency_ms"]["p50"] <= report["latency_ms"]["max"]
        assert (report["power_w"] is None) == (report["power_source"] is None)
        assert report["power_w"] != 0
