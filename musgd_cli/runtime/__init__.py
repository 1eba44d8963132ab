"""Engines that run an artifact, one small file each, and the loop around them.

No torch anywhere: a board runs its models without it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from musgd_cli.runtime.engine import Engine, Model

_CLASSES = {
    "onnxruntime": "OnnxRuntimeEngine",
    "openvino": "OpenVinoEngine",
    "ncnn": "NcnnEngine",
    "litert": "LiteRtEngine",
    "tensorrt": "TensorRtEngine",
    "null": "NullEngine",
}


def engine_class(runtime: str) -> type[Engine]:
    """Import an engine, its wheel included, and return its class.

    Each is opened by ``engine_class(runtime)(folder, artifact, threads)``.

    Raises:
        UnsupportedError: We have no such engine, its wheel is missing or does not load, or there is
            no GPU where it computes on one.
    """
    from musgd_cli.errors import UnsupportedError
    from musgd_cli.installation import ENGINE_EXTRAS, ExtraError, pip
    from musgd_cli.runtime.telemetry import block_telemetry

    if runtime not in _CLASSES:
        known = ", ".join(_CLASSES)
        raise UnsupportedError(
            f"there is no {runtime} engine", f"export for one of these runtimes: {known}"
        )
    block_telemetry()
    if runtime == "tensorrt":  # gigabytes of it are of no use, and hard to load, without a GPU
        from musgd_cli.runtime.cuda import Driver

        Driver()
    try:
        module = import_module(f"musgd_cli.runtime.{runtime}")
    except ModuleNotFoundError as error:
        raise ExtraError(
            f"{runtime} is not installed: there is no module {error.name}", ENGINE_EXTRAS[runtime]
        ) from error
    except (ImportError, OSError) as error:
        from musgd_cli.runtime.engine import WHEELS

        anew = pip(f"install --force-reinstall {WHEELS.get(runtime, runtime)}")
        raise ExtraError(
            f"{runtime} is installed but does not load: {error}",
            ENGINE_EXTRAS[runtime],
            f"{anew}, or see musgd doctor",
        ) from error
    loaded: type[Engine] = getattr(module, _CLASSES[runtime])
    return loaded


def check_files(folder: Path, artifact: Model) -> None:
    """See that an artifact's model is there and is the one its record describes.

    Raises:
        MusgdError: A file is missing, unreadable or not in the folder, or the hash differs.
    """
    from musgd_cli.errors import MusgdError
    from musgd_cli.paths import lies_inside
    from musgd_cli.storage import sha256_of

    mend = "musgd export makes it again; or copy the whole folder once more"
    if not artifact.files and artifact.runtime != "null":
        raise MusgdError(f"the artifact {folder} names no file of its model", mend)
    try:
        for name in artifact.files:
            if not lies_inside(folder, name):
                raise MusgdError(
                    f"the model in {folder} names {name!r}, which leads out of the folder",
                    "do not trust it; or, where the link is yours, put the file itself there",
                )
            if not (folder / name).is_file():
                raise MusgdError(f"the artifact {folder} lacks {name}", mend)
        found = sha256_of(folder / name for name in artifact.files)
    except OSError as error:
        raise MusgdError(
            f"cannot read the model in {folder}: {error.strerror or error}", "check permissions"
        ) from error
    if found != artifact.sha256:
        raise MusgdError(
            f"the model in {folder} is not the one that was exported: its sha256 is {found[:12]}…, "
            f"artifact.json says {artifact.sha256[:12]}…",
            mend,
        )


def prepare(folder: Path, artifact: Model, on_build: Callable[[], None] = lambda: None) -> None:
    """Do what a model needs once on a machine, before it is first loaded.

    TensorRT builds an engine of it, for minutes; no other runtime needs anything.

    Args:
        folder: Of the artifact.
        artifact: Its record; its files have been checked.
        on_build: Called if something is to be built.

    Raises:
        UnsupportedError: Its runtime is not installed, or this machine lacks its precision.
        MusgdError: It cannot be built.
    """
    prepare_one = getattr(engine_class(artifact.runtime), "prepare", None)
    if prepare_one is not None:
        prepare_one(folder, artifact, on_build)


def open_engine(
    folder: Path, artifact: Model, threads: int, on_build: Callable[[], None] = lambda: None
) -> Engine:
    """Load an artifact.

    Args:
        folder: Where it lies now; ``artifact.path`` is where it was written.
        artifact: Its record.
        threads: Threads the engine computes with, at least 1.
        on_build: Called if something is to be built first; see `prepare`.

    Raises:
        UnsupportedError: Its runtime is not installed, or this machine lacks its precision.
        MusgdError: The model is damaged.
    """
    check_files(folder, artifact)
    prepare(folder, artifact, on_build)
    engine: Engine = engine_class(artifact.runtime)(folder, artifact, threads)
    return engine
