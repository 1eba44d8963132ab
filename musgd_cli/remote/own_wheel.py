"""musgd's own wheel: built from the checkout that runs, or packed from its installation."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from musgd_cli.errors import MusgdError
from musgd_cli.installation import DISTRIBUTION, checkout, how_to_repair, pip

_ALTERED = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
"""Files beside the metadata that pip writes on installing, or that must be written anew."""


def make(folder: Path) -> Path:
    """Put our wheel into a folder and return its path.

    Raises:
        MusgdError: It cannot be built, or this installation is not whole.
    """
    source = checkout()
    return _pack(folder) if source is None else _build(source, folder)


def _build(source: Path, folder: Path) -> Path:
    # pip fetches the build's own needs where they are not at hand.
    at_hand = ["--no-build-isolation"] if find_spec("hatchling") else []
    done = subprocess.run(
        [
            sys.executable,
            "-P",  # a pip.py in the folder that a person stands in is not pip
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            *at_hand,
            "--wheel-dir",
            folder,
            source,
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    made = sorted(folder.glob("musgd_cli-*.whl"))
    if done.returncode or not made:
        lines = done.stdout.strip().splitlines() or ["no reason given"]
        raise MusgdError(
            f"musgd's own wheel cannot be built from {source}: {lines[-1].strip()}",
            f"{pip('install hatchling')}, then run the command again",
        )
    return made[-1]


def _pack(folder: Path) -> Path:
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise MusgdError(
            "this copy of musgd is neither a checkout nor installed: there is no wheel to make",
            f"run it from a checkout, or install that: {pip('install /path/to/musgd')}",
        ) from None
    names = [
        file
        for file in distribution.files or ()
        if re.match(r"musgd_cli[-/]", file.as_posix())
        and "__pycache__" not in file.parts
        and not (file.parts[0].endswith(".dist-info") and file.name in _ALTERED)
    ]
    missing = [name for name in names if not Path(str(name.locate())).is_file()]
    if missing or not names:
        raise MusgdError(
            f"this installation of musgd lacks {missing[0] if missing else 'its list of files'}",
            how_to_repair(),
        )
    wheel = folder / f"musgd_cli-{distribution.version}-py3-none-any.whl"
    (info,) = {name.parts[0] for name in names if name.parts[0].endswith(".dist-info")}
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            data = Path(str(name.locate())).read_bytes()
            archive.writestr(name.as_posix(), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            rows.writerow((name.as_posix(), f"sha256={digest}", len(data)))
        rows.writerow((f"{info}/RECORD", "", ""))
        archive.writestr(f"{info}/RECORD", record.getvalue())
    return wheel
