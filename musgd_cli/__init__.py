"""musgd: from a detection data set to a model that runs on an edge board.

Nothing is imported here: ``import musgd_cli.optim`` must not cost more than torch does.
"""

from __future__ import annotations

__version__ = "0.1.0"
