"""Profiles: one board's tuned values, each with its reason beside it in a TOML file.

The shipped ones lie in ``profiles/`` of the repository, and in the wheel as
``musgd_cli/_profiles``. A profile is complete: it gives every setting, for every optimizer, so
that nothing is left to a default hidden in code. Only the data set and the run's name may be
absent.
"""

from __future__ import annotations

import itertools
import json
import re
import shlex
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from musgd_cli.errors import UsageError
from musgd_cli.records import Host, Profile
from musgd_cli.sections import (
    KEYS,
    OPTIMIZERS,
    SECTIONS,
    Tables,
    contradictions,
    did_you_mean,
    may_be_absent,
    optimizer_has,
    read_tables,
)
from musgd_cli.storage import write_text

_HEADER = ("name", "summary", "boards")
_SMALL_ARM, _JETSON, _X86_GPU, _X86_CPU = "pi4b", "jetson-nano", "x86-gpu", "x86-cpu"


def folder() -> Path:
    """Return the folder of the shipped profiles."""
    package = Path(__file__).parent
    installed = package / "_profiles"
    return installed if installed.is_dir() else package.parent / "profiles"


def names() -> tuple[str, ...]:
    """Return the names of the shipped profiles, sorted."""
    return tuple(sorted(file.stem for file in folder().glob("*.toml")))


def find(name_or_path: str) -> Path:
    """Return the file of a shipped profile, or of one's own: a path that ends in ``.toml``.

    Raises:
        UsageError: There is no such profile.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(
                f"there is no profile {path}",
                f"musgd profiles copy {_X86_CPU} {shlex.quote(str(path))} makes one",
            )
        return path
    if name_or_path not in names():
        raise UsageError(
            f"unknown profile {name_or_path!r}{did_you_mean(name_or_path, names())}",
            f"choose one of {', '.join(names())}, or give the path of a .toml file",
        )
    return folder() / f"{name_or_path}.toml"


def load(name_or_path: str) -> Profile:
    """Load a profile by the name of a shipped one or the path of a ``.toml`` file.

    Raises:
        UsageError: There is no such profile, or it has faults; all of them are named.
    """
    path = find(name_or_path)
    profile, faults = _read(path)
    if profile is None:
        listed = "".join(f"\n  {fault}" for fault in faults)
        raise UsageError(
            f"the profile {path} cannot be used:{listed}",
            "musgd profiles show x86-cpu is a whole one, with each key's meaning",
        )
    return profile


def reason(name_or_path: str, key: str) -> str | None:
    """Return the reason that a profile's file gives for ``section.key``, its comment.

    The comment stands beside the value, above it, or both; without one, or without the key, there
    is no reason.

    Raises:
        UsageError: There is no such profile.
    """
    wanted_table, _, wanted = key.rpartition(".")
    table = ""
    above: list[str] = []
    for line in map(str.strip, read_text(find(name_or_path)).splitlines()):
        if header := re.fullmatch(r"\[(.+)\]", line):
            table, above = header[1], []
        elif line.startswith("#"):
            above.append(line.lstrip("# "))
        elif value := re.match(r"([\w-]+) *=[^#]*(?:# *(.*))?$", line):
            if (table, value[1]) == (wanted_table, wanted):
                return " ".join([*above, *filter(None, [value[2]])]) or None
            above = []
        else:
            above = []
    return None


def available() -> tuple[Profile, ...]:
    """Load every shipped profile, sorted by name."""
    return tuple(load(name) for name in names())


def check(path: Path) -> tuple[str, ...]:
    """Return every fault of a profile file, each ``file: section.key: what``; empty when sound.

    Raises:
        UsageError: There is no such file.
    """
    if not path.is_file():
        raise UsageError(f"there is no profile {path}", "check the path")
    return _read(path)[1]


def match(host: Host) -> Profile:
    """Return the shipped profile for ``host``: its board's own, or else the nearest. Never fails.

    The nearest to an ARM board without an NVIDIA GPU is ``pi4b``, the profile for the least
    machine, so its values are safe if not the best. The nearest to any other Jetson is
    ``jetson-nano``: TensorRT with FP16 runs on all of them, whether or not they have INT8.
    :func:`is_made_for` tells the two cases apart.
    """
    profiles = {profile.name: profile for profile in available()}
    for profile in profiles.values():
        if is_made_for(profile, host):
            return profile
    return profiles[_nearest(host)]


def is_made_for(profile: Profile, host: Host) -> bool:
    """Tell whether ``host``'s board is one the profile names, not just near to one."""
    return host.board in profile.boards


def _nearest(host: Host) -> str:
    if "jetson" in host.board or "orin" in host.board:
        return _JETSON
    if host.board.startswith(("pi", "cm")):
        return _SMALL_ARM
    if host.gpu_memory_mb or (host.gpu is not None and "nvidia" in host.gpu.lower()):
        return _X86_GPU
    arm = host.arch is not None and host.arch.startswith(("aarch64", "arm"))
    return _SMALL_ARM if arm or "arm" in host.board else _X86_CPU


def copy_to(name_or_path: str, destination: Path) -> Path:
    """Copy a profile with its comments to a new file, whose stem becomes the copy's name.

    Raises:
        UsageError: There is no such profile, or the destination exists or is no ``.toml`` path.
        MusgdError: The file cannot be written.
    """
    source = find(name_or_path)
    if destination.suffix != ".toml":
        raise UsageError(
            f"{destination} does not end in .toml",
            f"musgd profiles copy {name_or_path} {destination}.toml",
        )
    if destination.exists():
        raise UsageError(f"{destination} exists already", "choose another name")
    line = f"name = {json.dumps(destination.stem, ensure_ascii=False)}"
    # A function, or a backslash in the name would be read as a group.
    text = re.sub(r"^name *=.*$", lambda _: line, read_text(source), count=1, flags=re.MULTILINE)
    write_text(destination, text)
    return destination


# ------------------------------------------------------------------------------------ reading


def read_text(path: Path) -> str:
    """Read a profile as it is written.

    Raises:
        UsageError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}", "check the file") from error


def read_toml(path: Path) -> Mapping[str, Any]:
    """Decode a TOML file.

    Raises:
        ValueError: It cannot be read or is not TOML; the message says which and where.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"not TOML: {error}") from error


def _read(path: Path) -> tuple[Profile | None, tuple[str, ...]]:
    try:
        data = read_toml(path)
    except ValueError as error:
        return None, (f"{path}: {error}",)
    tables = read_tables(data)
    faults = [*_header_faults(path, data), *tables.faults]
    told = {fault.partition(":")[0] for fault in tables.faults}
    present = set(tables.common) | told
    for key in KEYS:
        section, _, name = key.partition(".")
        if section == "optim" and name != "name":
            faults += _optim_gaps(name, present, tables.per_optimizer, told)
        elif not may_be_absent(key) and key not in present and section not in told:
            faults.append(f"{key}: missing")
    faults += _contradictions(tables)
    if faults:
        return None, tuple(f"{path}: {fault}" for fault in faults)
    return Profile.model_validate(dict(data)), ()


def _header_faults(path: Path, data: Mapping[str, Any]) -> list[str]:
    known = [*_HEADER, *SECTIONS]
    faults = [f"{key}: unknown key{did_you_mean(key, known)}" for key in data if key not in known]
    name, summary, boards = (data.get(key) for key in _HEADER)
    if name != path.stem:
        shown = "missing" if name is None else f"{name!r} is not the file's"
        faults.append(f'name: {shown}; write name = "{path.stem}"')
    if not isinstance(summary, str) or not summary:
        faults.append("summary: one line of text is needed")
    if not isinstance(boards, list) or not all(isinstance(board, str) for board in boards):
        faults.append("boards: a list of board names is needed; [] for none")
    return faults


def _optim_gaps(
    key: str, present: set[str], tables: Mapping[str, Mapping[str, Any]], told: set[str]
) -> list[str]:
    """Name the optimizers that have a use for ``key`` and get no value."""
    lacking = [
        optimizer
        for optimizer in OPTIMIZERS
        if optimizer_has(optimizer, key)
        and key not in tables.get(optimizer, {})
        and f"optim.{optimizer}.{key}" not in told
    ]
    if not lacking or f"optim.{key}" in present or "optim" in told:
        return []
    if lacking == [name for name in OPTIMIZERS if optimizer_has(name, key)]:
        return [f"optim.{key}: missing"]
    return [f"optim.{optimizer}.{key}: missing" for optimizer in lacking]


def _contradictions(tables: Tables) -> list[str]:
    """Name the values that one of the optimizers cannot be built with."""
    faults = []
    for optimizer, fine_tunes in itertools.product(OPTIMIZERS, (False, True)):
        values = {
            key: value
            for value in tables.values(optimizer, fine_tunes=fine_tunes)
            if value.key.startswith("optim.")
            and optimizer_has(optimizer, key := value.key.removeprefix("optim."))
        }
        settled = {key: value.value for key, value in values.items()}
        for found in contradictions({**settled, "name": optimizer}):
            given = values.get(found.key)
            table = (given and given.table) or "optim"
            faults.append(f"{table}.{found.key}: {optimizer} cannot be so: {found.what}")
    return list(dict.fromkeys(faults))
