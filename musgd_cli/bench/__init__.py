"""Speed, accuracy, memory, power and heat of models, each measured in processes of its own.

The doors below import their rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from musgd_cli.bench.selection import OnDamage
    from musgd_cli.bench.session import Outcome
    from musgd_cli.bench.subject import Subject


def choose(paths: Sequence[str], on_damage: OnDamage | None = None) -> list[Subject]:
    """Return the models that paths name. See `musgd_cli.bench.selection.choose`."""
    from musgd_cli.bench import selection

    return selection.choose(paths, on_damage)


def measure_all(subjects: Sequence[Subject], **options: Any) -> Iterator[Outcome]:
    """Measure models in turns. See `musgd_cli.bench.session.measure_all`."""
    from musgd_cli.bench import session

    return session.measure_all(subjects, **options)
