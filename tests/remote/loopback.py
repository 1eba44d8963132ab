"""A real sshd on this machine stands in for boards, each with a home folder of its own.

It runs as the user who runs the tests, on a free port, with keys made for it, and hears nobody from
outside. A board is that user with another ``HOME``: an sshd of its own with ``SetEnv``. Boards are
aliases in an ssh config that ``MUSGD_SSH`` names.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from musgd_cli.records import BenchReport, DoctorReport, Host

MODEL = "runs/r/artifacts/x86-cpu-null-fp32-64"
"""Of the workshop that the tests stand in."""

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Network:
    """Boards that answer on loopback."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        """For ``ssh -F``."""
        return self.folder / "config"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    def board(
        self, name: str, *, is_known: bool = True, lets_us_in: bool = True, **environment: str
    ) -> Path:
        """Start a board, whose commands have these variables, and return its home folder."""
        place = self.folder / name
        home = place / "home"
        home.mkdir(parents=True)
        host_key = place / "host_key"
        make_key(host_key)
        port = free_port()
        variables = {"HOME": str(home), "PATH": "/usr/bin:/bin", **environment}
        settings = (
            f"Port {port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {host_key}",
            "PidFile none",
            f"AuthorizedKeysFile {self.folder / 'key.pub' if lets_us_in else 'none'}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "StrictModes no",  # a test's folder is everybody's to list
            "UsePAM no",
            "SetEnv " + " ".join(f'"{key}={value}"' for key, value in variables.items()),
        )
        (place / "sshd_config").write_text("\n".join(settings) + "\n")
        with (place / "log").open("wb") as log:
            daemon = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", place / "sshd_config"],
                stderr=log,
                start_new_session=True,
            )
        self.daemons[name] = daemon
        self.alias(name, port)
        if is_known:
            self.know(port, host_key)
        await_port(port, daemon, place / "log")
        return home

    def alias(self, name: str, port: int) -> None:
        """Name a port of this machine."""
        with self.config.open("a") as file:
            file.write(f"Host {name}\n  Port {port}\n")

    def know(self, port: int, key: Path) -> None:
        """Note a host key, as ssh does at the first connection."""
        public = key.with_suffix(".pub").read_text().split()[:2]
        with self.known_hosts.open("a") as file:
            file.write(f"[127.0.0.1]:{port} {' '.join(public)}\n")

    def set_up_anew(self, name: str) -> None:
        """Give a board another host key than the one that is noted."""
        lines = self.known_hosts.read_text().splitlines()
        text = self.config.read_text()
        port = text.partition(f"Host {name}\n  Port ")[2].split()[0]
        other = self.folder / f"{name}-of-before"
        make_key(other)
        kept = [line for line in lines if f":{port} " not in line]
        self.known_hosts.write_text("".join(f"{line}\n" for line in kept))
        self.know(int(port), other)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """Give a network without boards, or skip where there is no sshd; end its boards."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd here: apt install openssh-server")
    if os.geteuid() == 0:  # root's sshd wants it; Debian makes it when the service starts
        Path("/run/sshd").mkdir(exist_ok=True)
    make_key(folder / "key")
    opened = Network(folder)
    settings = (
        f"UserKnownHostsFile {opened.known_hosts}",
        "GlobalKnownHostsFile none",
        f"IdentityFile {folder / 'key'}",
        "IdentitiesOnly yes",
        f"User {getpass.getuser()}",
        "HostName 127.0.0.1",
    )
    opened.config.write_text("\n".join(settings) + "\n")
    opened.known_hosts.touch()
    try:
        yield opened
    finally:
        for daemon in opened.daemons.values():
            os.killpg(daemon.pid, signal.SIGTERM)
            daemon.wait()


def make_key(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until and daemon.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"sshd did not start: {log.read_text()}")


# ------------------------------------------------------------------------------- what boards have


def install(home: Path, script: str) -> None:
    """Put a musgd of our own where install.sh puts it."""
    place = home / ".local/bin/musgd"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(f"#!/bin/sh\n{script}\n")
    place.chmod(0o755)


def pretend(home: Path, bench: str, schema: str = "1.0", **fields: object) -> None:
    """Put a musgd there that tells at once what it is on, and does ``bench`` for a bench."""
    known = {"board": "pi4b", "cores": 4, "runtimes": {"onnxruntime": "1.20"}}
    host = Host.model_validate(known | fields)
    doctor = DoctorReport(host=host, profile="pi4b", checks=()).model_dump(mode="json")
    printed = shlex.quote(json.dumps({**doctor, "schema": schema}))
    install(home, f'if [ "$1" = doctor ]; then echo {printed}; exit 4; fi\n{bench}')


def prints(*reports: BenchReport) -> str:
    """A script that prints what ``musgd bench --json`` prints."""
    whole = {"schema": "1.0", "reports": [json.loads(one.model_dump_json()) for one in reports]}
    return f"echo {shlex.quote(json.dumps(whole))}"
