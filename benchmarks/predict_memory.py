"""What ``musgd predict`` weighs: ``python benchmarks/predict_memory.py SOURCE ARTIFACT...``.

Each artifact predicts SOURCE in a fresh process, saving what it draws to a temporary folder. Shown
is the most memory that was ever resident, VmHWM in /proc/self/status, interpreter and all, and
which of the packages that a board may lack were loaded. Exits with 4 where a limit is passed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from musgd_cli.runs import read_artifact

LIMITS_MB = {"ncnn": 150, "onnxruntime": 250}
FORBIDDEN = ("torch", "torchvision", "ultralytics")
NOTED = ("pydantic", "rich", "typer", "yaml")

RUNNER = """
import json, sys
from musgd_cli.__main__ import main
code = main(["predict", *sys.argv[2:], "--quiet"])
status = open("/proc/self/status").read()
peak_kb = int(status.partition("VmHWM:")[2].split()[0])
loaded = [name for name in sys.argv[1].split() if name in sys.modules]
print(json.dumps([code, peak_kb / 1024, loaded]), file=sys.stderr)
"""


def main() -> int:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", help="an image, a folder of images or a video")
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--threads", default="1")
    arguments = parser.parse_args()
    broken = False
    for folder in arguments.artifacts:
        with tempfile.TemporaryDirectory() as out:
            done = subprocess.run(
                [
                    *(sys.executable, "-c", RUNNER, " ".join((*FORBIDDEN, *NOTED))),
                    *(str(folder), arguments.source, "--threads", arguments.threads, "--out", out),
                ],
                capture_output=True,
                text=True,
                check=False,
            )
        try:
            *said, figures = done.stderr.strip().splitlines()
            code, peak_mb, loaded = json.loads(figures)
        except ValueError:  # it came to no end of its own
            print(f"error: predict with {folder} ended with {done.returncode}", file=sys.stderr)
            print(f"mend: {done.stderr.strip() or 'see dmesg'}", file=sys.stderr)
            return 1
        if code:
            print("\n".join(said), file=sys.stderr)
            return int(code)
        runtime = read_artifact(folder).runtime
        limit = LIMITS_MB.get(runtime)
        strangers = [name for name in loaded if name in FORBIDDEN]
        broken |= bool(strangers) or (limit is not None and peak_mb > limit)
        of = f" of {limit}" if limit else ""
        print(f"{folder.name:<36}{peak_mb:>7.1f} MB{of:<8} loaded: {' '.join(loaded)}")
    return 4 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
