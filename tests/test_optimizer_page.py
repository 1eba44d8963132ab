"""``docs/optimizer.md`` is enough to use the optimizer: its code runs, and learns."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

PAGE = Path(__file__).parent.parent / "docs" / "optimizer.md"


@pytest.fixture(scope="module")
def after() -> dict[str, Any]:
    """What the page's code, run from top to bottom, leaves behind."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.M | re.S)
    assert blocks
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    return names


def test_the_pages_classifier_learns(after: dict[str, Any]) -> None:
    """Half of the points are of either class."""
    assert after["accuracy"] > 0.95


def test_the_state_is_as_small_as_the_page_says(after: dict[str, Any]) -> None:
    """SGD's buffer; a number for each matrix, a value for each of a vector's; and an age each."""
    params = list(after["model"].parameters())
    expected = sum(p.numel() + (p.numel() if p.ndim < 2 else 1) + 1 for p in params)
    state = after["optimizer"].state
    assert sum(t.numel() for entry in state.values() for t in entry.values()) == expected
    names = {"momentum_buffer", "exp_avg_sq", "step"}
    assert all(entry.keys() == names for entry in state.values())


def test_the_page_names_every_option() -> None:
    import inspect

    from musgd_cli.optim import MuSGD

    text = PAGE.read_text(encoding="utf-8")
    options = set(inspect.signature(MuSGD).parameters) - {"params", "lr"}
    assert {
        name for name in options if f"`{name}" not in text and f'`group["{name}' not in text
    } == set()
