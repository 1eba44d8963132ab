"""A study in words: for the terminal, the committed summary and the profile's comments alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from musgd_cli.records import Searched, Study, TunedTrial
from musgd_cli.report.wording import count, machine_in_words, share

NOTHING = "-"


def loss(value: float | None) -> str:
    """Return a loss with the digits that differ between seeds."""
    return NOTHING if value is None else f"{value:.3f}"


def accuracy(value: float | None) -> str:
    """Return mAP, or a dash."""
    return NOTHING if value is None else share(value)


def plain(value: Any) -> str:
    """Return a setting's value as a person would type it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def short(key: str) -> str:
    """Return a setting's name within its section, where that is [optim]."""
    return key.removeprefix("optim.")


def values_in_words(values: Mapping[str, Any]) -> str:
    """Return ``lr 0.01, momentum 0.9``."""
    return ", ".join(f"{short(key)} {plain(value)}" for key, value in values.items())


def domain(searched: Searched) -> str:
    """Say what is searched."""
    if searched.choices:
        return ", ".join(map(plain, searched.choices))
    return f"{searched.low:g} to {searched.high:g}{', log scale' if searched.log else ''}"


def name_of(trial: TunedTrial) -> str:
    """Return what a trial is called in text."""
    return f"trial {trial.number}"


def machines(study: Study) -> tuple[str, ...]:
    """Return the machines that trained, each once."""
    return tuple(dict.fromkeys(trial.machine for trial in study.trials if trial.machine))


def verdict(study: Study) -> Iterator[str]:
    """Say what the study has come to, in sentences without a full stop."""
    best, baseline = study.trial(study.best), study.baseline
    told = [trial for trial in study.trials if trial.state != "running"]
    if study.verdict == "unfinished":
        yield f"unfinished: {len(told)} of {count(study.asked, 'trial')} have ended"
    elif study.verdict == "all diverged":
        yield "every trial diverged: begin with a lower rate, --set optim.lr=VALUE"
    elif study.verdict == "baseline is best":
        yield f"no trial has a lower validation loss than the profile's own values ({_own(study)})"
    if best is None or baseline is None or best.number == baseline.number:
        return
    if best.val_loss is not None and baseline.val_loss is not None:
        yield (
            f"on the seed that was searched, {name_of(best)} ({values_in_words(best.values)}) ends "
            f"at {loss(best.val_loss)}, the profile's own values ({_own(study)}) at "
            f"{loss(baseline.val_loss)}: {baseline.val_loss - best.val_loss:+.3f} gained"
        )
    if study.verdict == "not confirmed":
        yield "not confirmed on another seed, so the profile's own values are kept"
    elif study.confirmations:
        yield _confirmed(study)


def _own(study: Study) -> str:
    return values_in_words({each.key: each.baseline for each in study.search})


def _confirmed(study: Study) -> str:
    seeds = [str(each.seed) for each in study.confirmations]
    on = f"on {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(seeds)}, which chose nothing,"
    noise = (
        ""
        if study.noise is None
        else f" (between seeds the profile's own vary by {study.noise:.3f})"
    )
    gain = (
        "they cannot be compared, as one diverged"
        if study.gain is None
        else (f"the mean gain is {study.gain:+.3f}{noise}")
    )
    end = {
        "holds": "it holds, and is recommended",
        "does not hold": "it does not hold, so the profile's own values are kept",
    }.get(study.verdict, "the search goes on")
    return f"{on} {gain}: {end}"


def heading(study: Study) -> str:
    """Return the comment at the head of the profile that a study writes: how it was measured."""
    on = " and ".join(machines(study)) or machine_in_words(study.host)
    return (
        f"{count(len(study.trials), 'trial')} of {study.optimizer} on {study.data}, {study.model}, "
        f"{study.imgsz} px, batch {study.batch}, {count(study.epochs, 'epoch')}, on {on}: "
        f"{'; '.join(verdict(study))}."
    )


def reasons(study: Study) -> dict[str, str]:
    """Return the comment that each searched value gets in that profile."""
    if study.verdict == "holds" and study.gain is not None:
        seeds = ", ".join(str(each.seed) for each in study.confirmations)
        together = " with the others searched" if len(study.search) > 1 else ""
        found = f"{together} {study.gain:.3f} less validation loss on seeds {seeds}"
    elif study.verdict == "holds":
        found = " the value before diverged"
    else:
        found = " nothing better held on other seeds, so it is kept"
    return {
        each.key: f"Study {study.name}, {domain(each)}, {plain(each.baseline)} before:{found}."
        for each in study.search
    }


def summary(study: Study) -> str:
    """Return a study as a Markdown page that can be committed: no path of any machine is in it."""
    return "\n".join(_summary(study)) + "\n"


def _summary(study: Study) -> Iterator[str]:
    yield f"# Study {study.name}"
    yield ""
    yield f"Written by `musgd tune`. Profile {study.profile}, optimizer {study.optimizer}."
    yield ""
    for sentence in verdict(study):
        yield f"- {sentence[0].upper()}{sentence[1:]}."
    values = ", ".join(f"`{key} = {plain(value)}`" for key, value in study.recommended.items())
    yield f"- Recommended: {values}."
    yield ""
    yield "## What was trained"
    yield ""
    yield "| | |"
    yield "|---|---|"
    versions = ", ".join(f"{name} {version}" for name, version in study.versions.items())
    yield from (
        f"| {name} | {value} |"
        for name, value in (
            ("machine", " and ".join(machines(study)) or machine_in_words(study.host)),
            ("versions", versions),
            (
                "data",
                f"{study.data}: {study.n_images} images to train on, {study.n_val_images} of val",
            ),
            ("model", study.model),
            ("input", f"{study.imgsz} px, batch {study.batch}"),
            ("length", count(study.epochs, "epoch")),
            ("seed of the search", study.seed),
            ("objective", "validation loss of the last epoch, minimised"),
            ("pruning", f"worse than the median of the others, from epoch {study.pruned_from} on"),
        )
    )
    yield ""
    yield "## What was searched"
    yield ""
    yield "| setting | range | the profile's own | recommended |"
    yield "|---|---|---|---|"
    for each in study.search:
        yield (
            f"| `{each.key}` | {domain(each)} | {plain(each.baseline)} | "
            f"{plain(study.recommended[each.key])} |"
        )
    yield ""
    yield "## Every trial"
    yield ""
    keys = [each.key for each in study.search]
    head = ["trial", *map(short, keys), "val loss", "mAP50-95", "mAP50", "epochs", "s", "outcome"]
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for trial in study.trials:
        cells = [
            str(trial.number),
            *(plain(trial.values.get(key, NOTHING)) for key in keys),
            loss(trial.val_loss),
            accuracy(trial.map50_95),
            accuracy(trial.map50),
            NOTHING if trial.epochs is None else str(trial.epochs),
            NOTHING if trial.seconds is None else f"{trial.seconds:.0f}",
            outcome(trial, study),
        ]
        yield f"| {' | '.join(cells)} |"
    if study.confirmations:
        yield ""
        yield "## On seeds that chose nothing"
        yield ""
        yield "| seed | val loss: own | best | gain | mAP50-95: own | best |"
        yield "|---|---|---|---|---|---|"
        for held in study.confirmations:
            gain = NOTHING if held.gain is None else f"{held.gain:+.3f}"
            yield (
                f"| {held.seed} | {loss(held.baseline_val_loss)} | {loss(held.best_val_loss)} | "
                f"{gain} | {accuracy(held.baseline_map50_95)} | "
                f"{accuracy(held.best_map50_95)} |"
            )
    yield ""
    yield (
        "The search has one seed: differences between its trials that are smaller than the spread "
        "between seeds prove nothing, and the best of many is partly luck. A pruned trial's "
        "figures are of its last epoch, not of the last one asked for."
    )


def outcome(trial: TunedTrial, study: Study) -> str:
    """Return a trial's state, and what else it is."""
    also = ["the profile's own"] if trial.baseline else []
    also += ["best"] if trial.number == study.best else []
    return ", ".join([trial.state, *also])
