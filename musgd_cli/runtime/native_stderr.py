"""What native code prints to the terminal by itself, past Python's ``sys.stderr``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def quiet_native_code() -> Iterator[None]:
    """Lead the process's standard error nowhere, for libraries whose only log it is.

    Every thread is silent meanwhile. Errors are exceptions and pass.
    """
    try:
        kept = os.dup(2)
    except OSError:  # closed by who started us: nothing can be printed
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
