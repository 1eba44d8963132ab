"""``musgd fit`` for people: the answer, what shows it, and every candidate that mattered."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import PurePath
from typing import TYPE_CHECKING

from musgd_cli.report.wording import RUNTIME_NAMES, count, share, three_digits

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from musgd_cli.records import Fit, FitCandidate

_ACCURACY = {
    "gate": "mAP50-95 of the gates of the export",
    "score": "mAP50-95 on the data given",
    "size": "image size and then precision, as nothing says the mAP50-95; give --data",
}


def fit_table(fit: Fit) -> RenderableType:
    """Return the answer, the candidates and how they were judged."""
    from rich.console import Group
    from rich.text import Text

    shown = _shown(fit)
    return Group(
        *_answer(fit),
        Text(),
        *([_table(fit, shown)] if shown else ()),
        *(Text(line, style="dim") for line in _notes(fit, shown)),
        *_next(fit),
    )


def _answer(fit: Fit) -> Iterator[RenderableType]:
    from rich.text import Text

    if fit.chosen is not None:
        yield Text.assemble((f"{_goal(fit)}: ", "bold"), (describe(fit.chosen), "bold green"))
        yield Text(f"  measured: {_measured(fit, fit.chosen)}")
        if fit.chosen.stable is False:
            yield Text(
                "  unstable: other programs or heat sway it; its worse end meets the goal all the "
                "same",
                style="yellow",
            )
        if fit.step_larger is not None:
            yield Text(f"  one step larger: {describe(fit.step_larger)}: {_step(fit)}")
        elif larger := _larger_left_out(fit, fit.chosen):
            yield Text(f"  one step larger was left out: {describe(larger)}: {larger.why}")
        else:
            yield Text("  it is the largest image size of its kind here")
        return
    yield Text.assemble((f"{_goal(fit)}: ", "bold"), ("nothing here meets it", "bold red"))
    if fit.nearest is not None:
        yield Text(f"  nearest: {describe(fit.nearest)}: {_measured(fit, fit.nearest)}")


def _larger_left_out(fit: Fit, chosen: FitCandidate) -> FitCandidate | None:
    """Return the next larger size of the same kind, where all the larger ones were left out."""
    return min(
        (
            other
            for other in fit.candidates
            if other.imgsz > chosen.imgsz
            and _kind(other) == _kind(chosen)
            and other.fps is None
            and other.why
        ),
        key=lambda other: other.imgsz,
        default=None,
    )


def _kind(candidate: FitCandidate) -> tuple[object, ...]:
    place = PurePath(candidate.artifact).parent
    return place, candidate.target, candidate.runtime, candidate.precision


def describe(candidate: FitCandidate) -> str:
    """Name a candidate: its runtime, precision, image size and threads."""
    runtime = RUNTIME_NAMES.get(candidate.runtime, candidate.runtime)
    return (
        f"{runtime} {candidate.precision}, {candidate.imgsz} px, "
        f"{count(candidate.threads, 'thread')}"
    )


def _goal(fit: Fit) -> str:
    parts = [f"{fit.fps:g} FPS"]
    if fit.watts is not None:
        parts.append(f"at most {fit.watts:g} W at full speed")
    if fit.max_drop is not None:
        parts.append(f"at most {fit.max_drop:g} of mAP50-95 lost")
    return ", ".join(parts)


def _measured(fit: Fit, candidate: FitCandidate) -> str:
    parts = [f"{_fps(candidate)} FPS, whole frames"]
    if fit.watts is not None and candidate.power_w is not None:
        parts.append(f"{candidate.power_w:.2f} W")
    if candidate.map50_95 is not None:
        parts.append(f"mAP50-95 {share(candidate.map50_95)}")
    return ", ".join(parts)


def _step(fit: Fit) -> str:
    step = fit.step_larger
    assert step is not None
    if step.meets:
        return f"{_fps(step)} FPS, which meets it too, and is no more accurate"
    if step.counted_fps is not None and step.counted_fps >= fit.fps:
        return f"{_fps(step)} FPS, which is fast enough, but: {step.why}"
    too_hungry = fit.watts is not None and not (step.power_w or inf) <= fit.watts
    if step.fps is not None and step.fps >= fit.fps and not too_hungry:
        return f"{_fps(step)} FPS, which may miss it"
    return f"{_fps(step)} FPS, which misses it"


def _fps(candidate: FitCandidate) -> str:
    if candidate.fps is None:
        return "-"
    text = three_digits(candidate.fps)
    if candidate.fps_interval is not None:
        low, high = candidate.fps_interval
        text += f" ({three_digits(low)} to {three_digits(high)})"
    return text


# ------------------------------------------------------------------------------------------ table


def _shown(fit: Fit) -> list[FitCandidate]:
    """Return what was measured or left out, and what is more accurate than the answer.

    Of an artifact that was not measured that is the thread count that suits it best.
    """
    fastest: dict[str, FitCandidate] = {}
    for candidate in fit.candidates:
        other = fastest.get(candidate.artifact)
        if other is None or (candidate.predicted_fps or 0) > (other.predicted_fps or 0):
            fastest[candidate.artifact] = candidate
    measured = {candidate.artifact for candidate in fit.candidates if candidate.fps is not None}
    artifacts = [candidate.artifact for candidate in fit.candidates]
    answer = artifacts.index(fit.chosen.artifact) if fit.chosen is not None else len(artifacts)
    return [
        candidate
        for place, candidate in enumerate(fit.candidates)
        if candidate.fps is not None
        or candidate.why is not None
        or (
            place < answer
            and candidate.artifact not in measured
            and candidate is fastest[candidate.artifact]
        )
    ]


def _table(fit: Fit, shown: Sequence[FitCandidate]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("most accurate first", overflow="fold")
    headings = [("mAP", "50-95"), ("FPS", "predicted"), ("FPS", "measured")]
    if fit.watts is not None:
        headings.append(("power", "W"))
    for heading, unit in headings:
        table.add_column(Text.assemble(heading, "\n", (unit, "dim")), justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for candidate in shown:
        is_chosen = fit.chosen is not None and _same(candidate, fit.chosen)
        power = "-" if candidate.power_w is None else f"{candidate.power_w:.2f}"
        table.add_row(
            describe(candidate),
            "-" if candidate.map50_95 is None else share(candidate.map50_95),
            "-" if candidate.predicted_fps is None else three_digits(candidate.predicted_fps),
            _fps(candidate),
            *([power] if fit.watts is not None else ()),
            _verdict(candidate, is_chosen),
            style="bold" if is_chosen else "" if candidate.fps is not None else "dim",
        )
    return table


def _same(one: FitCandidate, other: FitCandidate) -> bool:
    return (one.artifact, one.threads) == (other.artifact, other.threads)


def _verdict(candidate: FitCandidate, is_chosen: bool) -> str:
    if is_chosen:
        return "chosen"
    if candidate.meets is None:
        return "left out" if candidate.why else ""
    return "meets it" if candidate.meets else "misses"


# ------------------------------------------------------------------------------------------ notes


def _notes(fit: Fit, shown: Sequence[FitCandidate]) -> Iterator[str]:
    unshown = {c.artifact for c in fit.candidates} - {c.artifact for c in shown}
    if unshown:
        yield f"not measured, and less accurate than the answer: {count(len(unshown), 'artifact')}"
    for candidate in shown:
        if candidate.meets is None and candidate.why is not None:
            yield f"left out: {PurePath(candidate.artifact).name}: {candidate.why}"
    settings = fit.settings
    repeats = (
        f"{count(settings.repeats, 'repeat')} of {settings.duration_s / settings.repeats:.3g} s"
    )
    yield (
        f"FPS: whole frames (letterbox, inference, decode), images in memory; measured in {repeats}"
    )
    if any(candidate.fps_interval is not None for candidate in shown):
        yield (
            "in brackets: where another such run is expected 19 times of 20; its lower end is held "
            "to the limit"
        )
    if any(candidate.stable is False for candidate in shown):
        yield (
            "unstable: that is more than 10 % wide; where it held the goal, it was measured once "
            "more, for twice as long"
        )
    if fit.rooflines:
        error = fit.prediction_error
        found = "" if error is None else f"; off by up to {error:.0%} where it was then measured"
        yield (
            "predicted: overhead plus time a pixel, through short measurements of the smallest and "
            f"the largest image of each model{found}"
        )
    yield f"accuracy: by {_ACCURACY[fit.accuracy_by]}"
    if fit.power_by is not None:
        yield f"power: {fit.power_by}, while it runs as fast as it can"


def _next(fit: Fit) -> Iterator[RenderableType]:
    from rich.text import Text

    if fit.chosen is not None:
        path = shlex.quote(str(PurePath(fit.chosen.artifact)))
        command = f"musgd bench {path} --threads {fit.chosen.threads}"
        yield Text.assemble(("next: ", "bold"), command)
