"""A model with just enough code to run it, for a board that has Python, an engine and OpenCV.

The code is this package's own files, copied: there is no second version of the loop.
"""

from __future__ import annotations

import shlex
import textwrap
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path, PurePosixPath

import musgd_cli
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.installation import how_to_repair
from musgd_cli.predict.model import RECORD
from musgd_cli.predict.standalone import REQUIREMENTS
from musgd_cli.records import Artifact, Bundle
from musgd_cli.runtime import check_files
from musgd_cli.storage import whole_file, whole_folder

PYTHON = (3, 9)
"""The oldest that the copied files run on."""

REQUIRES = {
    "onnxruntime": "onnxruntime>=1.19",
    "openvino": "openvino>=2025.0",
    "ncnn": "ncnn>=1.0.20240410",
    "litert": "ai-edge-litert>=2.3",
}
"""The wheel of each engine that a bundle can be made for."""

ALWAYS_REQUIRES = ("opencv-python-headless>=4.8", "numpy>=1.22")

LEAN_FILES = (
    "__init__.py",
    "errors.py",
    "installation.py",
    "paths.py",
    "signals.py",
    "storage.py",
    "data/__init__.py",
    "data/images.py",
    "hardware/__init__.py",
    "hardware/cpu.py",
    "hardware/tree.py",
    "predict/__init__.py",
    "predict/containers.py",
    "predict/drawing.py",
    "predict/model.py",
    "predict/output.py",
    "predict/places.py",
    "predict/session.py",
    "predict/sources.py",
    "predict/standalone.py",
    "runtime/__init__.py",
    "runtime/detector.py",
    "runtime/engine.py",
    "runtime/native_stderr.py",
    "runtime/telemetry.py",
)
"""Of this package, what every bundle needs beside its engine."""

ENGINE_FILES = {"litert": ("runtime/tflite_notes.py",)}
"""What an engine needs beside its own file."""

_MODEL = "model"

_ENTRY = f'''"""Find objects in images, videos and cameras: python3 predict.py --help."""

import sys
from pathlib import Path

if sys.version_info < {PYTHON}:
    sys.exit("error: Python %d.%d is too old\\nmend: python{PYTHON[0]}.{PYTHON[1]} or newer runs it"
             % sys.version_info[:2])

from musgd_cli.predict.standalone import main

sys.exit(main(Path(__file__).resolve().parent / "{_MODEL}"))
'''

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in a zip, so that the same bundle is the same bytes."""


def make(folder: Path, artifact: Artifact, out: Path, *, name: str) -> Bundle:
    """Write a bundle.

    Args:
        folder: Of the artifact.
        artifact: Its record.
        out: A new folder, or a new file where it ends in ``.zip``.
        name: Of the folder inside a zip.

    Raises:
        UsageError: ``out`` exists.
        UnsupportedError: No engine of ours runs such a model.
        MusgdError: The model is damaged, or ``out`` cannot be written.
    """
    if artifact.runtime not in REQUIRES:
        raise UnsupportedError(
            f"a {artifact.runtime} model cannot be bundled: no bundle holds what runs it",
            f"bundle one of these: {', '.join(REQUIRES)}",
        )
    if out.exists():
        raise UsageError(f"{out} exists already", "choose another --out, or remove it yourself")
    check_files(folder, artifact)
    files = dict(sorted(_files(folder, artifact)))
    if out.suffix.lower() == ".zip":
        with whole_file(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for path, data in files.items():
                entry = zipfile.ZipInfo(f"{name}/{path}", _EPOCH)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    else:
        with whole_folder(out) as temporary:
            for path, data in files.items():
                file = temporary / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
    return Bundle(
        path=str(out),
        artifact=str(folder),
        python=".".join(map(str, PYTHON)),
        requires=_requires(artifact),
        size_mb=round(sum(map(len, files.values())) / 2**20, 3),
    )


def _files(folder: Path, artifact: Artifact) -> Iterator[tuple[str, bytes]]:
    """Yield every file of a bundle: its path in there, and its content."""
    package = Path(musgd_cli.__file__).parent
    engine = (f"runtime/{artifact.runtime}.py", *ENGINE_FILES.get(artifact.runtime, ()))
    for name in (*LEAN_FILES, *engine):
        yield f"musgd_cli/{name}", (package / name).read_bytes()
    for name in artifact.files:
        yield f"{_MODEL}/{PurePosixPath(name)}", (folder / name).read_bytes()
    # Where its maker's folder lay is nobody's affair, and would make other bytes on each machine.
    record = artifact.model_copy(update={"path": ""})
    yield f"{_MODEL}/{RECORD}", (record.model_dump_json(indent=2) + "\n").encode()
    yield "predict.py", _ENTRY.encode()
    yield REQUIREMENTS, ("\n".join(_requires(artifact)) + "\n").encode()
    yield "README.txt", _readme(artifact).encode()
    yield "LICENSE", _license()


def _requires(artifact: Artifact) -> tuple[str, ...]:
    return (REQUIRES[artifact.runtime], *ALWAYS_REQUIRES)


def _license() -> bytes:
    """Return the text of our licence: beside the package in a checkout, else with its metadata."""
    beside = Path(musgd_cli.__file__).parents[1] / "LICENSE"
    if beside.is_file():
        return beside.read_bytes()
    try:
        files = metadata.files("musgd-cli") or ()
    except metadata.PackageNotFoundError:
        files = ()
    for file in files:
        if file.name == "LICENSE":
            return Path(str(file.locate())).read_bytes()
    raise MusgdError(
        "this installation of musgd lacks its LICENSE, which goes into every bundle",
        how_to_repair(),
    )


def _readme(artifact: Artifact) -> str:
    requires = " ".join(shlex.quote(line) for line in _requires(artifact))
    versions = ", ".join(f"{name} {version}" for name, version in artifact.versions.items())
    made = f"\nMade with {versions}." if versions else ""
    finds = textwrap.fill(f"Finds: {', '.join(artifact.names)}", 80)
    target = "" if artifact.target == "unknown" else f", for {artifact.target}"
    gate = ""
    if artifact.gate is not None:
        gate = (
            f"\nAgainst its float parent, on {artifact.gate.n_images} images: "
            f"{artifact.gate.verdict}."
        )
    return f"""{artifact.runtime} {artifact.precision}, {artifact.imgsz} px{target}
{finds}{made}{gate}

Needs Python {".".join(map(str, PYTHON))} or newer, and once:

    python3 -m pip install {requires}

Then:

    python3 predict.py photo.jpg               an image, or a folder of them
    python3 predict.py clip.mp4                a video
    python3 predict.py 0                       a camera; Ctrl-C ends it
    python3 predict.py rtsp://host/stream      a stream
    python3 predict.py 0 --json --no-save      one JSON object a frame, nothing drawn
    python3 predict.py --help                  the rest

What is drawn goes below predictions/. The folder model/ holds the model and its record,
musgd_cli/ the part of musgd {musgd_cli.__version__} that runs it.

Licence of the model: {artifact.license}. Licence of the code: AGPL-3.0-or-later, in LICENSE: who
passes this on, or lets others use it over a network, offers them the source too.
"""
