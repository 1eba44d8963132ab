"""Threads that ``threads=0`` stands for: affinity and cgroup quotas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from musgd_cli.hardware import usable_cores

V2 = "0::/user.slice/run.scope\n"
V1 = "4:cpu,cpuacct:/docker/4a17\n3:memory:/docker/4a17\n"


def put(tree: Path, files: dict[str, str]) -> Path:
    files = {"sys/devices/system/cpu/online": "0-5,8-9\n", **files}
    for path, text in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    return tree


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        # A share below a whole core is rounded down: four threads on 3.5 cores wait.
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "350000 100000\n"}, 3),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        # The tightest of all parents binds.
        (
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user.slice/cpu.max": "200000 100000\n",
                "sys/fs/cgroup/user.slice/run.scope/cpu.max": "400000 100000\n",
            },
            2,
        ),
        # Seen from inside, the path is the host's; the quota stands at the mount's root.
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu,cpuacct/docker/4a17/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/docker/4a17/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/cpu.max": "900000 100000\n"}, 8),
    ],
)
def test_quota_of_a_recorded_machine(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    assert usable_cores(put(tmp_path, files)) == cores


def test_affinity_of_this_process() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}})\n"
        "from musgd_cli.hardware import usable_cores\nprint(usable_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_no_more_than_this_machine_has() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)
