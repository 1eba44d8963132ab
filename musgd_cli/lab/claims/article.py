"""The article's claims: what each says, its experiment, and the rule of its verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from musgd_cli.errors import UsageError
from musgd_cli.lab.claims import boards, compression, convergence, cost, damping
from musgd_cli.lab.claims.workbench import Experiment

_SEEDS = "in every seed; in none: it does not; else undecided"


@dataclass(frozen=True)
class Claim:
    """One of the article's claims."""

    says: str
    figure: str
    """What the figure of its findings is."""
    rule: str
    """When it holds."""
    experiment: Experiment
    board: bool = False
    """It is about a board, and answered only there."""


CLAIMS: Mapping[str, Claim] = {
    "C1": Claim(
        "about 30 % faster convergence than SGD with momentum",
        "steps to the training loss that SGD ends with, as a share of SGD's",
        f"holds at {convergence.FASTER:g} or less {_SEEDS}",
        convergence.convergence,
    ),
    "C2": Claim(
        "15 to 20 % less memory than SGD with momentum",
        "bytes of optimizer state, as a share of SGD's",
        f"holds at {cost.LESS_MEMORY:g} or less, or if the peak memory of whole trainings is in "
        "every seed; state is counted, so one count decides",
        cost.memory,
    ),
    "C3": Claim(
        "YOLO26n on a Pi 4B: 30 to 21 minutes an epoch",
        "seconds of an epoch, as a share of SGD's",
        f"holds at {boards.SHORTER_EPOCH:g} or less {_SEEDS}",
        boards.epoch_time,
        board=True,
    ),
    "C4": Claim(
        "large gradients cut momentum and so prevent divergence",
        "learning rate survived for an epoch, as a multiple of what SGD and a constant momentum "
        "equal to the form's mean survive",
        "holds above 1 in every seed; below 1, or at 1 under the highest rate tried: it does not; "
        "else undecided",
        damping.damping,
    ),
    "C5": Claim(
        "less sensitive to lr and momentum than SGD with momentum",
        "mean excess of the last training loss over the best of a grid of lr x momentum, as a "
        "share of SGD's",
        f"holds at {convergence.LESS_SENSITIVE:g} or less with any line of the grid left out; "
        "with none: it does not; else undecided",
        convergence.sensitivity,
    ),
    "C6": Claim(
        "the norm and the coefficient cost next to nothing",
        "time of an optimizer step, as a multiple of SGD's",
        "holds within the limit of benchmarks/optimizer_step.py, by the median of the rounds",
        cost.step_cost,
    ),
    "C7": Claim(
        "fine-tuning after pruning needs fewer steps",
        "steps to the training loss that SGD's fine-tuning ends with, as a share of SGD's",
        f"holds at {convergence.FEWER:g} or less {_SEEDS}",
        compression.pruning,
    ),
    "C8": Claim(
        "weights survive quantization better",
        "share of its mAP50-95 that int8 costs a model less than SGD's",
        f"holds if its interval is above 0; below {compression.MATTERS:g}: it does not; else "
        "undecided",
        compression.quantization,
    ),
    "C9": Claim(
        "35 FPS on a Raspberry Pi 4B; 28 FPS on a Jetson Nano with TensorRT",
        "whole frames a second",
        "holds if its interval is at or above the claim; below: it does not; else undecided",
        boards.speed,
        board=True,
    ),
    "C10": Claim(
        "under 6.5 W, with a small-object recall of 70.7 %",
        "watts of the board at work",
        "holds below 6.5 W with a recall of .707 or more, on the data given",
        boards.power,
        board=True,
    ),
    "C11": Claim(
        "AdamW can still be the better choice",
        "AdamW's steps to the training loss that the form ends with, as a share of the form's",
        f"holds at {convergence.FEWER:g} or less, or with {convergence.MORE_MAP50:g} more mAP50, "
        f"{_SEEDS}",
        convergence.adamw,
    ),
}
"""By number, in the article's order."""


def choose(numbers: tuple[str, ...]) -> tuple[str, ...]:
    """Return claims in order, each once; without any, all of them.

    Raises:
        UsageError: There is no such claim.
    """
    asked = {number.strip().upper() for number in numbers} or set(CLAIMS)
    if unknown := sorted(asked - CLAIMS.keys()):
        raise UsageError(
            f"there is no claim {', '.join(map(repr, unknown))}",
            "they are C1 to C11, several as in --claim C1 --claim C2",
        )
    return tuple(number for number in CLAIMS if number in asked)
