"""The page of every verb and option is as the command line is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path


def test_the_cli_page_is_not_stale(repository: Path) -> None:
    page = (repository / "docs/cli.md").read_text(encoding="utf-8")
    rendered = runpy.run_path(str(repository / "docs/generate.py"))["render"]()
    assert page == rendered, "run: python docs/generate.py"
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert rows
    # Two cells each: a bar within one is written so that it ends none.
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
