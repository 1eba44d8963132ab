"""Options that several verbs share, so that they read the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only the result, warnings and errors.")
]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="Data set: a YAML in Ultralytics' format, or its folder."),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", help="Weights (.pt) to start from, or a model YAML to train from scratch."
    ),
]
Name = Annotated[str | None, typer.Option(help="The run's name, a folder below runs/.")]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
ImgSz = Annotated[
    int | None, typer.Option("--imgsz", help="Side of the square input, a multiple of 32 pixels.")
]
Batch = Annotated[int | None, typer.Option(help="Images a training step sees.")]
Optimizer = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="musgd (ours: SGD's memory, updates evened out by row and column), musgd-article (the "
        "article's: momentum shrinks while the gradient is large), sgd, adamw (both PyTorch's) or "
        "muon-sgd (Ultralytics' hybrid, which it calls MuSGD).",
    ),
]
Difficulty = Annotated[
    str | None,
    typer.Option(
        metavar="easy|hard",
        help="How far a large gradient cuts MuSGD's momentum, in the article's words: sets "
        "optim.adapt_factor to 0.01 or 0.1.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Of weights, augmentation and data order.")]
Profile = Annotated[
    str | None,
    typer.Option(
        help="Profile of the machine that trains: a name or a TOML file. Default: this machine's."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(help="Profile of the machine that will run the model. Default: this machine's."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="Any setting, e.g. optim.lr=0.02."),
]
Threads = Annotated[int | None, typer.Option(min=0, help="Engine threads; 0 takes every core.")]
Root = Annotated[
    Path | None,
    typer.Option(
        help="Read another machine's recorded /proc and /sys below this folder, nothing live.",
        exists=True,
        file_okay=False,
    ),
]
Source = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|WEIGHTS]",
        help="A run, its folder or its name, or a .pt. Default: the run that finished last.",
    ),
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="Load weights that may run code. Only if you know the author."),
]


def split(values: list[str] | None) -> tuple[str, ...]:
    """Return the values of an option that takes several, by commas or repeated."""
    parts = (part.strip() for value in values or () for part in value.split(","))
    return tuple(filter(None, parts))
