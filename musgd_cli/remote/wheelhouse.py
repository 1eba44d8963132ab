"""What a board installs without a network: its wheels, ours among them, and the installer.

Made on any machine; ``install.sh --offline`` checks it against its sums and installs from it.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import musgd_cli
from musgd_cli.errors import MusgdError, UnsupportedError, UsageError
from musgd_cli.hardware import boards
from musgd_cli.hardware.boards import Board
from musgd_cli.installation import checkout, how_to_repair, pip
from musgd_cli.records import Wheel, Wheelhouse
from musgd_cli.remote import own_wheel
from musgd_cli.storage import require_writable, sha256_of, whole_folder, write_record, write_text

RECORD = "wheelhouse.json"
SUMS = "SHA256SUMS"
"""Lines as ``sha256sum --check`` reads them, of every other file in the folder."""

DEBIAN_PYTHONS = ("3.11", "3.13")
"""Of Debian, and so of Raspberry Pi OS, 12 and 13."""

_OLDEST_PYTHON = (3, 11)
_GLIBC = 35
"""Of 2.35, which Ubuntu 22.04 has; Debian 12 has 2.36. Wheels for an older one run as well."""
_OLDEST_GLIBC = {"aarch64": 17, "x86_64": 5}
"""Where the manylinux tags of PEP 600 begin for what is built today."""

_NO_WHEELS = {
    "tensorrt": "NVIDIA's library has none; on the workstation, with a network: ./install.sh"
}
"""Extras that no wheelhouse can hold, and why."""

_CPU_TORCH = "https://download.pytorch.org/whl/cpu"
_INDEX_PATIENCE_S = 3.0

_UNREACHABLE = ("after connection broken by", "Max retries exceeded", "Read timed out")
_GAVE_UP = re.compile(r"\bRetry\(total=0,.* after connection broken by ")
"""What it says before its last attempt; a hiccup is over sooner."""


def fetch(
    target: str,
    out: Path,
    *,
    pythons: Sequence[str] = (),
    extras: Sequence[str] = (),
    on_progress: Callable[[str], None] = lambda _: None,
    on_warning: Callable[[str, str], None] = lambda _what, _mend: None,
) -> Wheelhouse:
    """Fetch what a board needs into a new folder, whole or not at all.

    Args:
        target: The board's name.
        out: The folder; it must not exist.
        pythons: Versions that the board may have, as ``3.11``. Default: Debian's, or for a board
            that trains, where a version costs gigabytes, this Python's.
        extras: Of our package, besides the board's own.
        on_progress: Told of each step.
        on_warning: Told of what is left out and the mend.

    Raises:
        UsageError: ``out`` exists, or there is no such board, Python or extra.
        UnsupportedError: The board takes no wheels, or a package has none for it.
        MusgdError: The index cannot be reached, or ``out`` cannot be written.
    """
    board = _board(target)
    machine = "x86_64" if board.name.startswith("x86") else "aarch64"
    ours = f"{sys.version_info[0]}.{sys.version_info[1]}"
    versions = tuple(pythons) or ((ours,) if board.trains else DEBIAN_PYTHONS)
    _check_pythons(versions)
    if os.path.lexists(out):
        raise UsageError(f"{out} exists already", "choose another --out, or remove it yourself")
    if find_spec("pip") is None:
        raise UnsupportedError(
            f"{sys.executable} has no pip, which fetches the wheels",
            f"{shlex.quote(sys.executable)} -m ensurepip, or call musgd from an environment "
            "with pip",
        )
    require_writable(out.parent)
    with whole_folder(out) as folder:
        on_progress("musgd's own wheel")
        own = own_wheel.make(folder)
        wanted = tuple(_left(_known((*board.extras, *extras), own), on_warning))
        for version in versions:
            on_progress(f"Python {version} on {machine}")
            _download(board, own, folder, machine, version, wanted, on_progress)
        on_progress("checksums")
        _add_installer(folder)
        wheels = tuple(
            Wheel(file=file.name, sha256=sha256_of([file]), size_mb=_mb(file))
            for file in sorted(folder.glob("*.whl"))
        )
        house = Wheelhouse(
            path="",
            target=board.name,
            machine=machine,
            pythons=versions,
            extras=wanted,
            version=own.name.split("-")[1],
            wheels=wheels,
            size_mb=round(sum(wheel.size_mb for wheel in wheels), 3),
        )
        write_record(folder / RECORD, house)
        _write_sums(folder)
    return house.model_copy(update={"path": str(out)})


# ---------------------------------------------------------------------------- what was asked for


def _board(target: str) -> Board:
    board = boards.by_name(target)
    if board is None or board.name == "generic":
        known = [b.name for b in boards.BOARDS if not b.agent and b.name != "generic"]
        near = difflib.get_close_matches(target, known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise UsageError(
            f"there is no wheelhouse for {target}{hint}", f"--target, one of {', '.join(known)}"
        )
    if board.agent:
        raise UnsupportedError(
            f"a {board.title} takes no wheels: JetPack 4 has Python 3.6",
            "copy this checkout there and run ./install.sh: it needs no network on a Jetson Nano",
        )
    return board


def _check_pythons(versions: Sequence[str]) -> None:
    for version in versions:
        found = re.fullmatch(r"3\.(\d{1,2})", version)
        if found is None or (3, int(found[1])) < _OLDEST_PYTHON:
            raise UsageError(
                f"--python {version} is no Python that runs musgd",
                f"--python {','.join(DEBIAN_PYTHONS)}, or another from 3.11 on",
            )


def _known(extras: tuple[str, ...], own: Path) -> tuple[str, ...]:
    known = _extras_of(own)
    for extra in extras:
        if extra not in known:
            near = difflib.get_close_matches(extra, known, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(
                f"musgd has no extra {extra!r}{hint}", f"--extras, of {', '.join(known)}"
            )
    return tuple(dict.fromkeys(extras))


def _extras_of(wheel: Path) -> list[str]:
    import zipfile

    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        head = archive.read(name).decode().partition("\n\n")[0]
    return re.findall(r"^Provides-Extra: (\S+)$", head, re.MULTILINE)


def _left(extras: tuple[str, ...], on_warning: Callable[[str, str], None]) -> Iterator[str]:
    for extra in extras:
        if extra in _NO_WHEELS:
            on_warning(f"{extra} is left out", _NO_WHEELS[extra])
        else:
            yield extra


# ----------------------------------------------------------------------------------- fetching it


def _download(
    board: Board,
    own: Path,
    folder: Path,
    machine: str,
    python: str,
    extras: tuple[str, ...],
    on_progress: Callable[[str], None],
) -> None:
    command = [
        # -P: pip must not find the modules beside the script.
        *(sys.executable, "-P", str(Path(__file__).with_name("pip_elsewhere.py"))),
        json.dumps(_markers(machine, python)),
        *("download", "--progress-bar", "off", "--only-binary", ":all:", "--dest", str(folder)),
        *("--implementation", "cp", "--python-version", python),
        *(part for tag in _platforms(machine) for part in ("--platform", tag)),
        *_torch_index(board),
        f"{own}[{','.join(extras)}]" if extras else str(own),
    ]
    log: list[str] = []
    # A folder of its own for what is half fetched, on the disk that will hold it all.
    with tempfile.TemporaryDirectory(prefix=".pip.", dir=folder) as scratch:
        process = subprocess.Popen(
            command,
            env={**os.environ, "TMPDIR": scratch},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        try:
            assert process.stdout is not None
            for line in process.stdout:
                log.append(line.strip())
                if fetched := re.match(r"(?:Downloading|Using cached) (\S+\.whl.*)", log[-1]):
                    on_progress(fetched[1].rpartition("/")[2])
            code = process.wait()
        finally:
            process.kill()  # where we were interrupted; else it has ended
            process.wait()
    if code:
        raise _explained(log, board, machine, python)


def _markers(machine: str, python: str) -> dict[str, str]:
    """Return the variables of PEP 508 on CPython under Linux."""
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }


def _platforms(machine: str) -> Iterator[str]:
    # pip takes each tag by its name: that a newer glibc runs what was built for an older is for us
    # to say.
    for minor in range(_GLIBC, _OLDEST_GLIBC[machine] - 1, -1):
        yield f"manylinux_2_{minor}_{machine}"
    yield f"manylinux2014_{machine}"
    if machine == "x86_64":
        yield from ("manylinux2010_x86_64", "manylinux1_x86_64")
    yield f"linux_{machine}"


def _torch_index(board: Board) -> list[str]:
    """Return where torch comes from, as in ``install.sh``: elsewhere PyPI's is for CUDA."""
    if not board.trains:  # on ARM PyPI's own is for the CPU, where pyproject.toml allows it
        return []
    index = os.environ.get("MUSGD_TORCH_INDEX")
    if not index and board.name == "x86-cpu" and _cpu_index_answers():
        index = _CPU_TORCH
    return ["--extra-index-url", index] if index else []


def _cpu_index_answers() -> bool:
    # One constant of ours, so its scheme is known.
    try:
        with urllib.request.urlopen(f"{_CPU_TORCH}/torch/", timeout=_INDEX_PATIENCE_S):  # noqa: S310
            return True
    except OSError:
        return False


def _explained(log: list[str], board: Board, machine: str, python: str) -> MusgdError:
    """Put pip's failure into words: the commonest reasons by its own, else its last error."""
    text = "\n".join(log)
    if "No space left on device" in text:
        return MusgdError("the disk is full", "free some space, or choose another --out")
    missing = re.findall(r"No matching distribution found for (.+)", text)
    if missing:  # also pip's last word where no index answered at all
        is_unreachable = "(from versions: none)" in text and _GAVE_UP.search(text) is not None
    else:
        end = text.rpartition("ERROR: ")[2]
        is_unreachable = any(words in end for words in _UNREACHABLE)
    if is_unreachable:
        return MusgdError(
            "pip cannot reach its package index",
            f"check the network, the proxy and pip's settings ({pip('config list')})",
        )
    if missing:
        return UnsupportedError(
            f"{missing[-1]}: there is no such wheel for Python {python} on {machine} "
            f"(glibc 2.{_GLIBC})",
            f"another --python, or without --extras, which {board.name} does not need",
        )
    errors = [line.removeprefix("ERROR: ") for line in log if line.startswith("ERROR: ")]
    reason = (errors or log or ["no reason given"])[-1]
    return MusgdError(f"pip failed: {reason}", f"check pip's settings ({pip('config list')})")


# ------------------------------------------------------------------------------- what goes with it


def _add_installer(folder: Path) -> None:
    """Put ``install.sh`` and its parts beside the wheels: the folder is all that a board needs."""
    beside = checkout()
    source = beside or Path(musgd_cli.__file__).parent / "_install"
    try:
        shutil.copy(source / "install.sh", folder)
        shutil.copytree(source / "installer", folder / "installer")
    except FileNotFoundError as error:
        raise MusgdError(
            f"this installation of musgd lacks {error.filename}",
            how_to_repair() if beside is None else "copy musgd's whole folder",
        ) from None


def _write_sums(folder: Path) -> None:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = (f"{sha256_of([file])}  {file.relative_to(folder).as_posix()}\n" for file in files)
    write_text(folder / SUMS, "".join(lines))


def _mb(file: Path) -> float:
    return round(file.stat().st_size / 2**20, 3)
