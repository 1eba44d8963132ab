"""pip as it would answer on another machine: ``python pip_elsewhere.py MARKERS download …``.

``pip download --platform`` chooses another machine's wheels, but asks this one whether a
requirement such as ``torch<2.10; platform_machine == 'aarch64'`` counts (pypa/pip#11664, open).
Here it asks MARKERS, a JSON object of PEP 508's variables. Run as a script, in a process of its
own: what it changes is pip's own.
"""

from __future__ import annotations

import json
import sys


def main(markers: str, arguments: list[str]) -> int:
    """Run pip and return its exit code."""
    from pip._vendor.packaging import markers as asked

    if not hasattr(asked, "default_environment"):
        print("ERROR: this version of pip cannot be told of another machine")  # noqa: T201
        return 1
    answers: dict[str, str] = json.loads(markers)
    asked.default_environment = lambda: dict(answers)

    from pip._internal.cli.main import main as pip

    return pip(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
