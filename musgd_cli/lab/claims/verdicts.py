"""From figures to a verdict: no mean hides that one seed says otherwise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from musgd_cli.records import ClaimFinding, ClaimVerdict

Form = Literal["musgd-article", "musgd"]

ARTICLE: Form = "musgd-article"
OURS: Form = "musgd"
FORMS: tuple[Form, ...] = (ARTICLE, OURS)

LEAST_SEEDS = 2
"""Of one seed nobody can tell what another would say."""


def at_most(figures: Sequence[float], limit: float) -> ClaimVerdict:
    """Judge a claim that a figure is at most ``limit``, given one figure a seed.

    It holds if it does in every seed, and does not if it does in none. Between, or of a single
    seed, it is undecided: more seeds may tell.
    """
    passes = [figure <= limit for figure in figures]
    if len(passes) < LEAST_SEEDS:
        return "undecided" if passes else "cannot be measured here"
    return "holds" if all(passes) else "undecided" if any(passes) else "does not hold"


def above(interval: tuple[float, float], margin: float) -> ClaimVerdict:
    """Judge a claim that a figure is above 0, given its interval.

    Args:
        interval: Where the figure lies.
        margin: What is too little to matter: if all of the interval is below, it does not hold.
    """
    low, high = interval
    return "holds" if low > 0 else "does not hold" if high < margin else "undecided"


def either(*verdicts: ClaimVerdict) -> ClaimVerdict:
    """Judge a claim that is right if one of several is."""
    for verdict in ("holds", "undecided", "does not hold"):
        if verdict in verdicts:
            return verdict
    return "cannot be measured here"


def finding(
    form: Form,
    verdict: ClaimVerdict,
    figures: Sequence[float],
    why: str,
    *,
    compared_with: str | None = None,
    spread: tuple[float, float] | None = None,
) -> ClaimFinding:
    """Return a finding: the figures' median, and their range where no ``spread`` is given."""
    if spread is None and len(figures) > 1:
        spread = (min(figures), max(figures))
    return ClaimFinding(
        optimizer=form,
        verdict=verdict,
        figure=statistics.median(figures) if figures else None,
        spread=spread,
        n=len(figures),
        compared_with=compared_with,
        why=why,
    )


def unmeasured(form: Form, why: str) -> ClaimFinding:
    """Return the finding that there is nothing to find here."""
    return ClaimFinding(optimizer=form, verdict="cannot be measured here", why=why)
