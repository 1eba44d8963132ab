"""How this musgd came here, and so what a person types to add to it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path

from musgd_cli.errors import UnsupportedError

ENGINE_EXTRAS = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "ncnn": "ncnn",
    "litert": "litert",
    "tensorrt": "tensorrt",
}
"""Which extra of ``musgd-cli`` brings an engine's wheel."""

DISTRIBUTION = "musgd-cli"
"""What pip calls musgd."""

_MANIFEST = "# What musgd's install.sh has made"
"""How the file begins that ``install.sh`` leaves beside its virtual environment."""


class ExtraError(UnsupportedError):
    """What an extra of musgd brings is not here, or does not load (exit code 3).

    Args:
        what: As any error's.
        extra: Of ``pyproject.toml``.
        mend: What to type instead of adding the extra.
    """

    def __init__(self, what: str, extra: str, mend: str | None = None) -> None:
        super().__init__(what, mend or how_to_add(extra))
        self.extra = extra

    def __reduce__(self) -> tuple[type[ExtraError], tuple[str, str, str]]:  # type: ignore[override]
        return type(self), (self.what, self.extra, self.mend)


def how_to_add(extra: str) -> str:
    """Return the command that brings an extra into the installation that runs.

    What ``install.sh`` has installed it extends; all else pip does, from where it was taken.
    """
    if _is_of_install_script():
        return _with_install_script(extra)
    return pip(f"install {_source(f'[{extra}]')}")


def how_to_repair() -> str:
    """Return the command that lays musgd's own files down anew where they are installed."""
    return pip(f"install --force-reinstall --no-deps {_source()}")


def checkout() -> Path | None:
    """Return the folder of the sources that this code runs from; ``None`` for an installed one."""
    folder = Path(__file__).resolve().parents[1]
    return folder if (folder / "pyproject.toml").is_file() else None


def pip(arguments: str) -> str:
    """Return a command line of the pip that belongs to the Python that runs."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.prefix, "bin"):
        return f"pip {arguments}"
    return f"{shlex.quote(sys.executable or 'python3')} -m pip {arguments}"


def _source(extras: str = "") -> str:
    """Return what pip installs musgd from.

    Never its bare name: musgd is on no index yet, and what is put there may be anybody's.
    """
    folder, url, editable = _origin()
    if url is not None:
        return shlex.quote(f"{DISTRIBUTION}{extras} @ {url}")
    if folder is None:
        return f"{shlex.quote(f'/path/to/musgd{extras}')}, of a checkout"
    place = "." if folder == Path.cwd() else str(folder)
    return f"{'-e ' if editable else ''}{shlex.quote(f'{place}{extras}')}"


def _origin() -> tuple[Path | None, str | None, bool]:
    """Return the folder or wheel that was installed, or its URL, and whether it runs in place."""
    # Late: a board's hot start has no failure to mend, and these cost milliseconds.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        recorded = json.loads(distribution(DISTRIBUTION).read_text("direct_url.json") or "{}")
        url = urlsplit(recorded["url"])
        if vcs := recorded.get("vcs_info"):
            at = f"@{vcs['requested_revision']}" if "requested_revision" in vcs else ""
            return None, f"{vcs['vcs']}+{url.geturl()}{at}", False
        if url.scheme == "file":
            editable = bool(recorded.get("dir_info", {}).get("editable"))
            return Path(unquote(url.path)), None, editable
        if url.scheme in ("http", "https"):
            return None, url.geturl(), False
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return checkout(), None, False


def _is_of_install_script() -> bool:
    try:
        return Path(sys.prefix).with_name("manifest").read_text("utf-8").startswith(_MANIFEST)
    except (OSError, ValueError):
        return False


def _with_install_script(extra: str) -> str:
    origin, _, _ = _origin()
    prefix = Path(sys.prefix).parent
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    elsewhere = [] if prefix == Path(data, "musgd").resolve() else ["--prefix", str(prefix)]
    if origin is None or origin.suffix == ".whl":
        return _with_wheelhouse(extra, origin, elsewhere)
    script = origin / "install.sh"
    is_there = script.is_file()
    command = ["sh", str(script) if is_there else "/path/to/musgd/install.sh", "--extras", extra]
    return shlex.join([*command, *elsewhere]) + ("" if is_there else ", of a checkout")


def _with_wheelhouse(extra: str, wheel: Path | None, elsewhere: list[str]) -> str:
    import json

    # What the first one was made for stands beside the wheel, while that folder is kept.
    board, extras, named = "BOARD", [], ", where BOARD is what musgd doctor calls this one"
    try:
        record = (wheel or Path()).with_name("wheelhouse.json").read_text("utf-8")
        made = json.loads(record)
        board, extras, named = str(made["target"]), list(map(str, made["extras"])), ""
    except (OSError, ValueError, KeyError, TypeError):
        pass
    house = f"wheelhouse-{board}"
    python = f"{sys.version_info[0]}.{sys.version_info[1]}"
    wanted = ",".join(dict.fromkeys([*extras, extra]))
    fetch = ["musgd", "wheelhouse", "--target", board, "--python", python, "--extras", wanted]
    install = ["sh", f"{house}/install.sh", "--offline", house, *elsewhere]
    return (
        f"on a machine with a network: {shlex.join(fetch)}{named}; "
        f"then here, with the folder that it made: {shlex.join(install)}"
    )
