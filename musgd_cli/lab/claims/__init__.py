"""The article's claims, each an experiment on the machine it is asked on.

The door imports its rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.lab.claims.session import Order, Watchers
    from musgd_cli.records import Claims


def examine(order: Order, watchers: Watchers, machine: Path = Path("/")) -> Claims:
    """Measure claims, or go on where that was stopped. See `musgd_cli.lab.claims.session`."""
    from musgd_cli.lab.claims import session

    return session.examine(order, watchers, machine)
