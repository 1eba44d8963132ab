"""Reports as one HTML page that needs nothing beside it: no network, no font, no other file.

It is built as a tree of elements, so nothing in a record can become markup.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.records import BenchReport


def render(reports: Sequence[BenchReport]) -> str:
    """Return the page of ``reports``, of which there is at least one.

    They may be of several machines, models and data sets; the page says what cannot be compared.
    """
    from musgd_cli import __version__
    from musgd_cli.report.lineup import Lineup
    from musgd_cli.report.look import style_sheet
    from musgd_cli.report.page import environments, sections, summary
    from musgd_cli.report.page.markup import document, node

    lineup = Lineup(reports)
    own = files(__name__)
    head = node(
        "head",
        node("meta", charset="utf-8"),
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("meta", name="generator", content=f"musgd {__version__}"),
        node("title", f"{summary.title(lineup)} · musgd bench"),
        node("style", style_sheet(), "\n", own.joinpath("page.css").read_text("utf-8")),
    )
    body = node(
        "body",
        summary.header(lineup),
        node(
            "main",
            summary.highlights(lineup),
            summary.warnings(lineup),
            sections.trade_offs(lineup),
            sections.figures(lineup),
            sections.latencies(lineup),
            sections.courses(lineup),
            sections.classes(lineup),
            environments.environments(lineup),
            environments.method(),
        ),
        node("footer", node("p", f"Made by musgd {__version__} from its bench reports.")),
        node("script", own.joinpath("page.js").read_text("utf-8")),
    )
    return document(node("html", head, body, lang="en"))
