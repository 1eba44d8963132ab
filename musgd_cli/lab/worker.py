"""The process that trains one trial; `musgd_cli.lab.trials` starts it and talks with it.

Its task is one JSON line on stdin, the news are JSON lines on stdout. It stops where it is when
its stdin ends, which the death of whoever started it brings about too.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from musgd_cli import train
from musgd_cli.errors import MusgdError
from musgd_cli.records import Plan
from musgd_cli.runs import RunFolder
from musgd_cli.train.events import DivergedError, Listeners


def main() -> int:
    """Train what stdin says."""
    # stdout is the wire; what native code prints must not get into it.
    wire, sys.stdout = sys.stdout, sys.stderr
    line = sys.stdin.readline()
    if not line:
        return 0
    stop = threading.Event()
    threading.Thread(target=_until_let_go, args=(stop,), daemon=True).start()

    def tell(news: dict[str, Any]) -> None:
        try:
            wire.write(json.dumps(news) + "\n")
            wire.flush()
        except BrokenPipeError:
            stop.set()

    task = json.loads(line)
    run = RunFolder(Path(task["folder"]))
    listeners = Listeners(
        on_epoch=lambda log: tell({"epoch": log.model_dump(mode="json")}),
        on_warning=lambda text: tell({"warning": text}),
        stop=stop.is_set,
    )
    # A process whose parent was killed may still be at its last step.
    with (run.path.parent / "logs" / f"{run.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            _train(Plan.parse(task["plan"]), run, listeners, trust=task["trust"])
        except MusgdError as error:
            tell(
                {
                    "failure": {
                        "what": error.what,
                        "mend": error.mend,
                        "exit_code": int(error.exit_code),
                        "diverged": isinstance(error, DivergedError),
                    }
                }
            )
            return int(error.exit_code)
    return 0


def _until_let_go(stop: threading.Event) -> None:
    sys.stdin.read()
    stop.set()


def _train(plan: Plan, run: RunFolder, listeners: Listeners, *, trust: bool) -> None:
    if run.finished:  # by the process that held the lock
        return
    if (run.weights / "resume.pt").exists():
        train.resume(run, listeners, trust=trust)
        return
    if run.path.exists():  # cut off before its first epoch ended
        shutil.rmtree(run.path)
    run.path.mkdir(parents=True)
    train.train(plan, run, listeners, trust=trust)


if __name__ == "__main__":
    sys.exit(main())
