"""HTML and SVG as trees of elements: what is written is balanced and escaped by construction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

DASH = "\N{EN DASH}"
TIMES = "\N{MULTIPLICATION SIGN}"

Part = Element | str | None
Child = Part | Iterable[Part] | Sequence[Part]


def node(tag: str, *children: Child, **attributes: str | float | None) -> Element:
    """Return an element.

    Args:
        tag: Its name.
        children: Elements and texts in their order, or iterables of them; ``None`` is left out.
        attributes: ``stroke_width`` stands for ``stroke-width``, ``class_`` for ``class``;
            ``None`` leaves one out, numbers are rounded to hundredths.
    """
    element = Element(tag)
    for name, value in attributes.items():
        if value is not None:
            element.set(name.rstrip("_").replace("_", "-"), _text(value))
    for child in children:
        parts = [child] if child is None or isinstance(child, str | Element) else child
        for part in parts:
            _append(element, part)
    return element


def _append(element: Element, part: Element | str | None) -> None:
    if isinstance(part, Element):
        element.append(part)
    elif part is not None and len(element):
        element[-1].tail = (element[-1].tail or "") + part
    elif part is not None:
        element.text = (element.text or "") + part


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def section(name: str, title: str, *children: Element | str | None) -> Element:
    """Return a section with its heading; ``name`` is what a link can point at."""
    return node("section", node("h2", title), children, id=name)


def document(root: Element) -> str:
    """Return a whole HTML document."""
    return "<!doctype html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")
