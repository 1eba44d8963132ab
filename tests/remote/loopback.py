"""A real sshd on this machine that stands in for boards, each with a home folder of its own.

It runs as the user who runs the tests, on a free port, with keys made for it, and listens to
nobody from outside. A board is an account of that user with another ``HOME``: an sshd of its own,
with ``SetEnv``. Their names are aliases of an ssh config that ``MUSGD_SSH`` names.
"""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


@dataclass
class Network:
    """Boards that answer on loopback."""

    folder: Path
    config: Path
    key: Path
    daemons: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def board(self, name: str, **environment: str) -> Path:
        """Start a board, whose commands have these variables, and return its home folder."""
        place = self.folder / name
        home = place / "home"
        home.mkdir(parents=True)
        host_key = place / "host_key"
        make_key(host_key)
        port = free_port()
        variables = {"HOME": str(home), "PATH": "/usr/bin:/bin", **environment}
        settings = "\n".join(
            (
                f"Port {port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {host_key}",
                f"PidFile {place / 'pid'}",
                f"AuthorizedKeysFile {self.key}.pub",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "StrictModes no",  # the folder of a test is everybody's to list
                "UsePAM no",
                "SetEnv " + " ".join(f'"{key}={value}"' for key, value in variables.items()),
            )
        )
        (place / "sshd_config").write_text(settings + "\n")
        daemon = subprocess.Popen(
            [str(SSHD), "-D", "-e", "-f", place / "sshd_config"],
            stderr=(place / "log").open("wb"),
            start_new_session=True,
        )
        self.daemons.append(daemon)
        self.alias(name, port)
        known = host_key.with_suffix(".pub").read_text().split()[:2]
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{port} {' '.join(known)}\n")
        await_port(port, daemon, place / "log")
        return home

    def alias(self, name: str, port: int) -> None:
        """Name a port of this machine."""
        with self.config.open("a") as file:
            file.write(f"Host {name}\n  Port {port}\n")

    def forget(self) -> None:
        """Know no host key any longer."""
        (self.folder / "known_hosts").write_text("")

    def mistake(self, other_key: Path) -> None:
        """Know another key for every host than it has."""
        words = other_key.with_suffix(".pub").read_text().split()[:2]
        file = self.folder / "known_hosts"
        hosts = [line.split()[0] for line in file.read_text().splitlines()]
        file.write_text("".join(f"{host} {' '.join(words)}\n" for host in hosts))

    def close(self) -> None:
        """End every board."""
        for daemon in self.daemons:
            os.killpg(daemon.pid, signal.SIGTERM)
            daemon.wait()


def open_network(folder: Path) -> Network:
    """Return a network without boards, or skip where there is no sshd."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd here: apt install openssh-server")
    if os.geteuid() == 0:  # which root's sshd needs, and Debian makes when it starts the service
        Path("/run/sshd").mkdir(exist_ok=True)
    key = folder / "key"
    make_key(key)
    config = folder / "config"
    config.write_text(
        f"UserKnownHostsFile {folder / 'known_hosts'}\n"
        f"GlobalKnownHostsFile none\n"
        f"IdentityFile {key}\n"
        f"IdentitiesOnly yes\n"
        f"User {getpass.getuser()}\n"
        f"HostName 127.0.0.1\n"
        f"ConnectionAttempts 1\n"
    )
    (folder / "known_hosts").write_text("")
    return Network(folder, config, key)


def make_key(file: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def await_port(port: int, daemon: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + 10
    while time.monotonic() < until and daemon.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"sshd did not start: {log.read_text()}")
