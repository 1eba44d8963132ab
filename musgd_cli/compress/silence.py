"""What converters print and report to their makers, kept off our streams and off the network."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TextIO

from musgd_cli.runtime.telemetry import block_telemetry


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
