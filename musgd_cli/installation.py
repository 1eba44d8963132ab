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

    What ``install.sh`` has installed it extends; a checkout that pip has installed, and a release
    from an index, pip does.
    """
    origin, editable = _origin()
    if _is_of_install_script():
        return _with_install_script(extra, origin)
    if origin is None:
        return pip(f"install 'musgd-cli[{extra}]'")
    place = "." if origin == Path.cwd() else str(origin)
    return pip(f"install {'-e ' if editable else ''}{shlex.quote(f'{place}[{extra}]')}")


def pip(arguments: str) -> str:
    """Return a command line of the pip that belongs to the Python that runs."""
    found = shutil.which("pip")
    if found and Path(found).parent == Path(sys.prefix, "bin"):
        return f"pip {arguments}"
    return f"{shlex.quote(sys.executable or 'python3')} -m pip {arguments}"


def _origin() -> tuple[Path | None, bool]:
    """Return the folder or wheel that was installed, and whether its code runs where it lies."""
    # Late: a board's hot start has no failure to mend, and these cost milliseconds.
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        recorded = json.loads(distribution("musgd-cli").read_text("direct_url.json") or "{}")
        url = urlsplit(recorded["url"])
        editable = bool(recorded.get("dir_info", {}).get("editable"))
    except (PackageNotFoundError, OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, False
    return (Path(unquote(url.path)), editable) if url.scheme == "file" else (None, False)


def _is_of_install_script() -> bool:
    try:
        return Path(sys.prefix).with_name("manifest").read_text("utf-8").startswith(_MANIFEST)
    except (OSError, ValueError):
        return False


def _with_install_script(extra: str, origin: Path | None) -> str:
    if origin is None or origin.suffix == ".whl":
        return (
            f"on a machine with a network: musgd wheelhouse --target BOARD --extras {extra}; "
            "then here: its install.sh"
        )
    script = origin / "install.sh"
    if not script.is_file():
        return f"install.sh --extras {extra} of a checkout of musgd"
    prefix = Path(sys.prefix).parent
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local/share"
    elsewhere = [] if prefix == Path(data, "musgd").resolve() else ["--prefix", str(prefix)]
    return shlex.join(["sh", str(script), "--extras", extra, *elsewhere])
