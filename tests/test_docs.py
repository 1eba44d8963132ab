"""The page of every verb and option is as the command line is."""

from __future__ import annotations

import runpy
from pathlib import Path


def test_the_cli_page_is_not_stale(repository: Path) -> None:
    page = (repository / "docs/cli.md").read_text(encoding="utf-8")
    rendered = runpy.run_path(str(repository / "docs/generate.py"))["render"]()
    assert page == rendered, "run: python docs/generate.py"
