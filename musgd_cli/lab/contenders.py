"""Contenders: an optimizer with changed settings, as typed, and the plans of its trials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from musgd_cli.errors import UsageError
from musgd_cli.records import Host, OptimSettings, Plan
from musgd_cli.sections import OPTIMIZERS, did_you_mean, from_text, optimizer_has
from musgd_cli.settings import settle

SWEEP_SEED = 1000
"""What learning rates are swept on; never scored."""

SWEEP_FACTORS = (1 / 3, 1.0, 3.0)

_KEYS = tuple(key for key in OptimSettings.model_fields if key != "name")
_EXAMPLE = "write NAME or NAME:KEY=VALUE, such as sgd:nesterov=false"


@dataclass(frozen=True)
class Contender:
    """An optimizer, and the settings of ``[optim]`` in which it departs from the plan's."""

    name: str
    changes: Mapping[str, Any]
    """``[optim]`` key to typed value, in the order typed; without ``lr``."""
    lr: float | None = None
    """Where its learning rate is, or the centre of its sweep; ``None``: the profile's."""

    @classmethod
    def parse(cls, text: str) -> Contender:
        """Read ``NAME[:KEY=VALUE[:KEY=VALUE…]]``, such as ``musgd:adapt_factor=auto``.

        Raises:
            UsageError: No such optimizer, or it has no such key, or the value is wrong.
        """
        name, *assignments = (part.strip() for part in text.split(":"))
        if name not in OPTIMIZERS:
            raise UsageError(
                f"{name!r} is no optimizer{did_you_mean(name, OPTIMIZERS)}",
                f"take one of {', '.join(OPTIMIZERS)}; {_EXAMPLE}",
            )
        changes: dict[str, Any] = {}
        for assignment in assignments:
            key, equals, value = (part.strip() for part in assignment.partition("="))
            if not equals:
                raise UsageError(f"{text}: {assignment!r} is no KEY=VALUE", _EXAMPLE)
            if key not in _KEYS:
                raise UsageError(
                    f"{text}: unknown key {key!r}{did_you_mean(key, _KEYS)}",
                    f"the keys are {', '.join(_KEYS)}",
                )
            if not optimizer_has(name, key):
                raise UsageError(f"{text}: {name} has no {key}", "leave it out")
            if key in changes:
                raise UsageError(f"{text}: {key} is given twice", "leave one of them out")
            try:
                changes[key] = from_text(f"optim.{key}", value)
            except ValueError as error:
                raise UsageError(f"{text}: {key}: {error}", _EXAMPLE) from error
        lr = changes.pop("lr", None)
        return cls(name, changes, lr)

    @property
    def label(self) -> str:
        """How it is typed."""
        return self._spell(self.changes if self.lr is None else {**self.changes, "lr": self.lr})

    @property
    def slug(self) -> str:
        """What its trials' folders begin with, whatever their learning rates."""
        return self._spell(self.changes).replace(":", "-")

    def _spell(self, changes: Mapping[str, Any]) -> str:
        return ":".join((self.name, *(f"{key}={_typed(value)}" for key, value in changes.items())))

    def changed(self, **changes: Any) -> Contender:
        """Return it with other settings: ``[optim]`` key to typed value."""
        return replace(self, changes={**self.changes, **changes})

    def plan(
        self,
        base_flags: Mapping[str, Any],
        lr: float | None,
        seed: int,
        *,
        host: Host,
        profile: str | None = None,
        spelling: Mapping[str, str] | None = None,
    ) -> Plan:
        """Settle the plan of one of its trials.

        Args:
            base_flags: ``section.key`` to typed value, what all contenders share.
            lr: ``None``: its own, or else the profile's.
            seed: Of weights, augmentation and data order.
            host: See `musgd_cli.settings.settle`, as for the others.
            profile: A profile's name or path.
            spelling: How the flags were typed.

        Raises:
            UsageError: A setting is wrong, or means nothing to its optimizer.
        """
        own = {
            "optim.name": self.name,
            **{f"optim.{key}": value for key, value in self.changes.items()},
            "optim.lr": self.lr if lr is None else lr,
            "train.seed": seed,
        }
        return settle(
            host=host,
            profile=profile,
            flags={**base_flags, **own},
            spelling={**(spelling or {}), **dict.fromkeys(own, self.label)},
        )

    def trial_name(self, lr: float, seed: int) -> str:
        """Return the name of a trial's folder."""
        return f"{self.slug}-lr{lr:g}-seed{seed}"


def sweep(centre: float) -> tuple[float, ...]:
    """Return the learning rates to try around ``centre``, to two significant digits."""
    return tuple(float(f"{centre * factor:.2g}") for factor in SWEEP_FACTORS)


def parse_contenders(text: str) -> tuple[Contender, ...]:
    """Read contenders that commas separate.

    Raises:
        UsageError: There is none, one is wrong, or one is given twice.
    """
    contenders = tuple(Contender.parse(part) for part in text.split(",") if part.strip())
    if not contenders:
        raise UsageError(
            "no optimizer to compare", f"--optimizers {','.join(OPTIMIZERS)} takes all of them"
        )
    for at, contender in enumerate(contenders):
        if contender in contenders[:at]:
            raise UsageError(f"{contender.label} is given twice", "leave one of them out")
    return contenders


def _typed(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
