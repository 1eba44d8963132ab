"""What native code prints to the terminal by itself, past Python's ``sys.stderr``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def quiet_native_code() -> Iterator[list[str]]:
    """Lead the process's standard error aside, for libraries whose only log it is.

    Every thread is silent meanwhile. Errors are exceptions and pass.

    Yields:
        The lines that were written, once the block is left.
    """
    said: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # closed by who started us: nothing can be printed
        yield said
        return
    try:
        with os.fdopen(os.memfd_create("stderr"), "w+b") as aside:
            os.dup2(aside.fileno(), 2)
            try:
                yield said
            finally:
                os.dup2(kept, 2)
                aside.seek(0)
                said += aside.read().decode("utf-8", "replace").splitlines()
    finally:
        os.close(kept)
