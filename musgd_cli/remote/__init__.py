"""Boards over ssh: what is to be measured is copied there, measured there, and told here.

The door below imports its rooms when called, so that importing this package costs nothing.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from musgd_cli.bench.session import Outcome
    from musgd_cli.remote.session import Request
    from musgd_cli.remote.speech import Tell


def measure_on(
    hosts: Sequence[str], agents: Sequence[str], request: Request, tell: Tell
) -> Generator[Outcome, None, None]:
    """Measure on several boards at once. See `musgd_cli.remote.session.measure_on`.

    Args:
        hosts: Boards that have musgd.
        agents: Boards that have Python 3.6 and TensorRT's trtexec.
        request: What is to be measured, and how.
        tell: Is told what goes on.
    """
    from musgd_cli.remote import agent, host, session

    boards = [(name, host.measure) for name in dict.fromkeys(hosts)]
    boards += [(name, agent.measure) for name in dict.fromkeys(agents)]
    return session.measure_on(boards, request, tell)
