"""What converters print and report to their makers, kept off our streams and off the network."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TextIO


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Keep what libraries print, log and warn of to themselves, and stop their telemetry.

    Nobody of us should speak inside: ``sys.stdout`` and ``sys.stderr`` lead nowhere. Errors are
    exceptions and pass.
    """
    block_telemetry()
    threshold = logging.root.manager.disable
    with (
        contextlib.redirect_stdout(_nowhere()),
        contextlib.redirect_stderr(_nowhere()),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(threshold)


@cache
def _nowhere() -> TextIO:
    # Never closed: log handlers that are made meanwhile hold on to it.
    return Path(os.devnull).open("w", encoding="utf-8")


def block_telemetry() -> None:
    """Make NNCF and OpenVINO send nothing, by hiding the package that would.

    ``openvino_telemetry`` asks nobody: without a consent file it takes a yes for granted, writes
    ``~/intel`` and connects to Google Analytics. Both libraries fall back to a stub where it cannot
    be imported, which a ``None`` in ``sys.modules`` sees to.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
