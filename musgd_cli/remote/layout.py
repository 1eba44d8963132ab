"""What one bench on a board needs, and the folder that it finds it in: laid out as runs are here.

So a board's musgd calls a model by its run, finds its float parent beside it, and reads in the
run's plan which set it was trained on: the copy of that set.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from musgd_cli.bench.selection import data_of, parent_of
from musgd_cli.bench.subject import Subject
from musgd_cli.data import load
from musgd_cli.data.dataset import DataSet
from musgd_cli.errors import UsageError
from musgd_cli.paths import PLAN_FILE, RUNS
from musgd_cli.records import Artifact, Plan
from musgd_cli.remote.parcels import Parcel, Shelf, in_words, of_model, of_split
from musgd_cli.remote.speech import Tell
from musgd_cli.report.wording import count
from musgd_cli.runs import run_of


class Layout:
    """Everything that is sent to one board.

    Args:
        subjects: What is measured there.
        data: Data set for all of them. Without one each run's own is taken, if it is here.
        runs_there: Tells whether the board can run a model; a float parent that it cannot run is
            not sent.

    Raises:
        UsageError: There is no such data set.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        data: str | None,
        runs_there: Callable[[Artifact], bool],
    ) -> None:
        self.subjects: dict[str, Subject] = {}
        """By how each is called there."""
        self._models: dict[str, Parcel] = {}
        self._sets: dict[Path, tuple[DataSet, Parcel]] = {}
        self._plans: dict[str, tuple[Plan, Path | None]] = {}
        self._runs: dict[Path, str] = {}
        self._given = None if data is None else self._add_set(data)
        for subject in subjects:
            place = self._place_of(subject)
            path = self._add_model(place, subject)
            if subject.made_by is not None:
                path += f"/{subject.artifact.files[0]}"
            self.subjects[path] = subject
        for path, subject in list(self.subjects.items()) if self._sets else ():
            parent = parent_of(subject, subjects)  # to tell how far scores shift
            if parent is not None and parent not in subjects and runs_there(parent.artifact):
                self._add_model(path.rpartition("/")[0], parent)

    def _place_of(self, subject: Subject) -> str:
        """Return the folder there that a model's folder lies in; with its run's plan, if new."""
        run = run_of(subject.folder) if subject.made_by is None else None
        here = (subject.folder.parent if run is not None else subject.path).absolute()
        if here not in self._runs:
            name = stem = run.name if run is not None else subject.name
            numbers = itertools.count(2)
            while name in self._runs.values():
                name = f"{stem}-{next(numbers)}"
            self._runs[here] = name
            if run is not None and run.plan_file.is_file():
                self._plans[f"{RUNS}/{name}/{PLAN_FILE}"] = run.plan(), self._own_set(subject)
        return f"{RUNS}/{self._runs[here]}/artifacts"

    def _own_set(self, subject: Subject) -> Path | None:
        data = data_of(subject)
        if data is None or self._given is not None:
            return None
        try:
            return self._add_set(data)
        except UsageError:
            return None  # the run was copied here, and its data was not

    def _add_set(self, data: str) -> Path:
        data_set = load(data)
        if data_set.path not in self._sets:
            self._sets[data_set.path] = data_set, of_split(data_set)
        return data_set.path

    def _add_model(self, place: str, subject: Subject) -> str:
        parcel = of_model(subject)
        self._models[f"{place}/{parcel.name}"] = parcel
        return f"{place}/{parcel.name}"

    # -------------------------------------------------------------------------------- sending

    def send(self, shelf: Shelf, tell: Tell) -> str:
        """Copy what the board lacks, and return the folder there to bench in.

        Raises:
            MusgdError: The board's disk cannot be written, or the connection broke.
            OSError: A file cannot be read here.
        """
        parcels = [*self._models.values(), *(parcel for _, parcel in self._sets.values())]
        lacking = shelf.lacking(parcels)
        if lacking:
            what = ", ".join(self._in_words({parcel.key for parcel in lacking}))
            tell(shelf.connection.destination, f"copying {in_words(lacking)}: {what}")
        for parcel in lacking:
            shelf.send(parcel)
        return shelf.lay_out(
            {path: shelf.place(parcel) for path, parcel in self._models.items()},
            {path: self._plan_there(shelf, *plan) for path, plan in self._plans.items()},
        )

    def sets_there(self, shelf: Shelf) -> dict[str, Path]:
        """Return the data sets by the path of their description there."""
        return {self._set_there(shelf, path): path for path in self._sets}

    def given_there(self, shelf: Shelf) -> str | None:
        """Return the path there of the set that was given for all; ``None``: none was."""
        return None if self._given is None else self._set_there(shelf, self._given)

    def _set_there(self, shelf: Shelf, path: Path) -> str:
        return f"{shelf.place(self._sets[path][1])}/{path.name}"

    def _plan_there(self, shelf: Shelf, plan: Plan, data: Path | None) -> bytes:
        if data is not None:
            settled = plan.settings["train.data"]
            there = settled.model_copy(update={"value": self._set_there(shelf, data)})
            settings = {**plan.settings, "train.data": there}
            plan = plan.model_copy(update={"settings": settings})
        return plan.model_dump_json().encode()

    def _in_words(self, keys: set[str]) -> Iterable[str]:
        n_models = len({parcel.key for parcel in self._models.values()} & keys)
        if n_models:
            yield count(n_models, "model")
        for data_set, parcel in self._sets.values():
            if parcel.key in keys:
                split = data_set.score_split
                images = count(len(data_set.images(split)), "image")
                yield f"{images} of {data_set.path.name}, {split}"
