"""The optimizer and the parameter groups it is fed. Knows torch and nothing else."""

from __future__ import annotations

from musgd_cli.optim.groups import parameter_groups
from musgd_cli.optim.musgd import MuSGD, musgd

__all__ = ["MuSGD", "musgd", "parameter_groups"]
