"""Which reports are meant by files, folders and runs, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from invented_reports import NANO, PI, parent, report

from musgd_cli.errors import UsageError
from musgd_cli.records import BenchReport, BenchReports
from musgd_cli.report.reading import gather
from musgd_cli.storage import write_record

EARLY, LATE = "2026-11-24T08:00:00+00:00", "2026-11-24T09:00:00+00:00"


def kept(path: Path, made: BenchReport) -> BenchReport:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, made)
    return made


def test_files_hold_one_report_or_an_object_of_several(tmp_path):
    one = kept(tmp_path / "a.json", report())
    two = BenchReports(reports=(parent(), report(host=NANO)))
    write_record(tmp_path / "b.json", two)
    reading = gather([str(tmp_path / "b.json"), str(tmp_path / "a.json")])
    assert reading.reports == (*two.reports, one)
    assert reading.left_out == 0


def test_what_is_named_twice_counts_once(tmp_path):
    one = kept(tmp_path / "a.json", report())
    assert gather([str(tmp_path / "a.json"), str(tmp_path)]).reports == (one,)


def test_of_a_run_the_newest_of_each_model_machine_and_thread_count(tmp_path):
    bench = tmp_path / "runs/cells/bench"
    kept(bench / "a.json", report(started=EARLY))
    newest = [
        kept(bench / "b.json", report(71, started=LATE)),
        kept(bench / "c.json", report(started=EARLY, threads=1)),
        kept(bench / "d.json", report(started=EARLY, host=NANO)),
        kept(bench / "e.json", report(started=EARLY, sustained=True)),
        kept(bench / "f.json", parent(started=EARLY)),
    ]
    (tmp_path / "runs/cells/plan.json").write_text("{}")
    for spec in (str(tmp_path / "runs/cells"), "cells", str(bench)):
        reading = gather([spec], root=tmp_path / "runs")
        assert list(reading.reports) == newest
        assert reading.left_out == 1
    everything = [str(file) for file in sorted(bench.iterdir())]
    assert len(gather(everything).reports) == 6


@pytest.mark.parametrize(
    "fields",
    [
        {"data": "/data/coco128/coco128.yaml", "split": "val", "n_images": 128},
        {"data": "/data/other/bccd.yaml"},
        {"data": None, "split": None, "n_images": 0, "map50_95": None},
    ],
)
def test_a_score_on_other_images_or_none_does_not_replace_one(tmp_path, fields):
    scored = kept(tmp_path / "runs/cells/bench/a.json", report(started=EARLY))
    later = kept(tmp_path / "runs/cells/bench/b.json", report(started=LATE, **fields))
    reading = gather(["cells"], root=tmp_path / "runs")
    assert (reading.reports, reading.left_out) == ((scored, later), 0)


def test_an_updated_system_replaces_the_report_of_the_old_one(tmp_path):
    kept(tmp_path / "a.json", report(started=EARLY))
    updated = PI.model_copy(update={"os": "Debian 13", "kernel": "6.12", "ram_mb": 3729})
    later = kept(tmp_path / "b.json", report(started=LATE, host=updated))
    assert gather([str(tmp_path)]).reports == (later,)


def test_without_a_name_the_run_that_was_benched_last(tmp_path):
    kept(tmp_path / "old/bench/a.json", report())
    fresh = kept(tmp_path / "new/bench/a.json", parent())
    os.utime(tmp_path / "old/bench/a.json", (1, 1))
    assert gather([], root=tmp_path).reports == (fresh,)


def test_a_folder_of_the_runs_name_that_holds_none_does_not_hide_the_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cells").mkdir()
    made = kept(tmp_path / "runs/cells/bench/a.json", report())
    assert gather(["cells"]).reports == (made,)
    (tmp_path / "cells/annotations.json").write_text("{}")
    assert gather(["cells"]).reports == (made,)
    loose = kept(tmp_path / "cells/a.json", parent())
    assert gather(["cells"]).reports == (loose,)


def test_a_report_of_a_newer_version_is_read(tmp_path):
    data = report().model_dump_json().replace('"schema":"1.0"', '"schema":"1.9","smell":"none"', 1)
    (tmp_path / "a.json").write_text(data)
    assert gather([str(tmp_path / "a.json")]).reports[0].artifact_sha256 == "child"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ('{"schema": "1.0", "reports": [{}]}', "holds no BenchReports: reports.0"),
        ('{"schema": "1.0", "latency_ms": {"p50": 3}}', "holds no BenchReport: artifact"),
    ],
)
def test_a_damaged_report_is_named_wherever_it_lies(tmp_path, content, words):
    file = tmp_path / "wrong.json"
    file.write_text(content)
    kept(tmp_path / "right.json", report())
    for spec in (file, tmp_path):
        with pytest.raises(UsageError, match=r"wrong\.json") as caught:
            gather([str(spec)])
        assert words in caught.value.what


def test_json_of_another_kind_in_a_folder_is_left_out_and_counted(tmp_path):
    made = kept(tmp_path / "a.json", report())
    write_record(tmp_path / "host.json", NANO)
    (tmp_path / "list.json").write_text("[]")
    reading = gather([str(tmp_path)])
    assert (reading.reports, reading.of_other_kinds) == ((made,), 2)
    with pytest.raises(UsageError, match=r"host\.json holds no BenchReport"):
        gather([str(tmp_path / "host.json")])
    (tmp_path / "a.json").unlink()
    with pytest.raises(UsageError, match=r"no bench report in .*2 JSON files are something else"):
        gather([str(tmp_path)])


@pytest.mark.parametrize("sign", ["plan.json", "train.json", "artifacts/a/artifact.json"])
def test_a_run_that_was_not_benched_says_so_and_how_to(tmp_path, sign):
    run = tmp_path / "runs/my cells"
    (run / sign).parent.mkdir(parents=True)
    (run / sign).write_text("{}")
    for spec in ("my cells", str(run)):
        with pytest.raises(
            UsageError, match=r"no bench report of the run .*my cells yet"
        ) as caught:
            gather([spec], root=tmp_path / "runs")
        assert caught.value.mend == f"musgd bench '{run}'"


def test_what_is_not_there_names_what_is(tmp_path):
    kept(tmp_path / "runs/cells/bench/a.json", report())
    with pytest.raises(UsageError, match="cels does not exist") as caught:
        gather(["cels"], root=tmp_path / "runs")
    assert "cells" in caught.value.mend
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no bench report in .*empty") as caught:
        gather([str(tmp_path / "empty")])
    assert "musgd bench" in caught.value.mend
    with pytest.raises(UsageError, match="no bench report"):
        gather([], root=tmp_path / "nothing")
