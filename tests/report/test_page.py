"""The page: whole, self-contained, escaped, and with every figure that the records have."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from invented_reports import ESTIMATED, METERED, NANO, PI, course, null, parent, report

from musgd_cli.records import BenchReport
from musgd_cli.report.look import color_of
from musgd_cli.report.page import render

VOID = {"meta", "br", "hr", "img", "input", "link"}
INT8: dict[str, Any] = {
    "artifact": "runs/cells/artifacts/pi4b-ncnn-int8-320",
    "artifact_sha256": "int8",
    "precision": "int8",
    "map50_95": 0.6011,
}


class Node:
    def __init__(self, tag: str, attributes: dict[str, str | None], up: Node | None) -> None:
        self.tag, self.attributes, self.up = tag, attributes, up
        self.children: list[Node | str] = []

    def __getitem__(self, name: str) -> str:
        return self.attributes.get(name) or ""

    def all(self, tag: str, class_: str = "") -> list[Node]:
        found = []
        for child in self.children:
            if isinstance(child, Node):
                if child.tag == tag and class_ in ("", *child["class"].split()):
                    found.append(child)
                found += child.all(tag, class_)
        return found

    def one(self, tag: str, class_: str = "") -> Node:
        (found,) = self.all(tag, class_)
        return found

    def section(self, name: str) -> Node:
        (found,) = [n for t in ("section", "aside") for n in self.all(t) if n["id"] == name]
        return found

    @property
    def text(self) -> str:
        parts = [c if isinstance(c, str) else c.text for c in self.children]
        return " ".join(" ".join(parts).split())


class Page(HTMLParser):
    """The page as a tree; a tag that is not closed, or closed twice, fails."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.root = self.at = Node("", {}, None)
        self.feed(html)
        self.close()
        assert self.at is self.root, f"<{self.at.tag}> is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        node = Node(tag, dict(attrs), self.at)
        self.at.children.append(node)
        if tag not in VOID:
            self.at = node

    def handle_endtag(self, tag: str) -> None:
        assert self.at.tag == tag, f"<{self.at.tag}> is closed by </{tag}>"
        assert self.at.up is not None
        self.at = self.at.up

    def handle_data(self, data: str) -> None:
        self.at.children.append(data)


def page_of(*reports: BenchReport) -> Node:
    return Page(render(reports)).root


def rows(page: Node) -> list[dict[str, Node]]:
    table = page.one("table", "figures")
    heads = [th.text for th in table.one("thead").all("th")]
    return [
        dict(zip(heads, [c for c in tr.children if isinstance(c, Node)], strict=True))
        for tr in table.one("tbody").all("tr")
    ]


MIXED = (
    parent(**METERED),
    report(**METERED),
    report(44, **INT8, **ESTIMATED, stable=False, p50_interval_ms=(40.2, 48.0)),
    report(18, host=NANO, runtime="tensorrt", power_mode="MAXN", gpu_memory_mb=512.4),
    report(
        61, sustained=True, throttled=True, moments=course(15.2, seconds=600, throttled_from=260)
    ),
    report(data="/d/coco128.yaml", split="val", ap50_95={f"class {n}": n / 80 for n in range(80)}),
    null(),
)


# ------------------------------------------------------------------------------------- the document


@pytest.mark.parametrize("reports", [MIXED, MIXED[:1], MIXED[-1:]], ids=["mixed", "one", "null"])
def test_it_is_whole_and_needs_nothing_beside_it(reports):
    html = render(reports)
    page = Page(html).root
    assert html.startswith("<!doctype html>")
    assert page.one("html")["lang"] == "en"
    for tag in ("link", "img", "iframe", "object", "base", "image", "use"):
        assert not page.all(tag)
    for node in everything(page):
        for name, value in node.attributes.items():
            assert name not in ("src", "href", "srcset", "onclick"), f"<{node.tag} {name}={value}>"
    styles = page.one("style").text + page.one("script").text
    assert not re.search(r"https?:|@import|url\(|fetch|XMLHttp|import\(", styles)
    ids = [node["id"] for node in everything(page) if node["id"]]
    assert len(set(ids)) == len(ids)


def everything(node: Node) -> list[Node]:
    below = [child for child in node.children if isinstance(child, Node)]
    return [*below, *(n for child in below for n in everything(child))]


def test_what_a_record_says_never_becomes_markup():
    evil = '"><script>alert(1)</script>'
    host = PI.model_copy(update={"model": evil, "cpu": evil, "board": f"b{evil}"})
    html = render(
        [
            report(
                artifact=f"runs/a/artifacts/x'{evil}",
                host=host,
                data=f"/data/{evil}.yaml",
                ap50_95={evil: 0.5, "<b>": 0.1},
                engine={evil: evil},
                power_note=evil,
                made_by=evil,
                governor=evil,
                versions={evil: evil},
            ),
            parent(host=host, ap50_95={evil: 0.4}),
        ]
    )
    page = Page(html).root
    assert len(page.all("script")) == 1
    assert "<script>alert" not in html
    assert evil in page.all("table", "classes")[0].text
    assert evil in page.section("environments").text


def test_sixty_thousand_samples_do_not_go_into_the_page():
    long = report(frames=60_000, sustained=True, moments=course(14, seconds=3600))
    html = render([long])
    assert len(html) < 80_000
    curve = Page(html).root.section("time").one("svg", "wide").one("polyline", "fps")
    assert 100 < len(curve["points"].split()) <= 240


# ------------------------------------------------------------------------------------------ figures


def test_every_figure_of_a_record_is_in_its_row_with_a_number_to_sort_by():
    full = report(**METERED, gpu_memory_mb=512.4)
    shown = rows(page_of(parent(), full))[1]
    for heading, text, key in (
        ("precision", "fp16", "fp16"),
        ("threads", "4", "4"),
        ("p50 ms", "70.1 69.4 \N{EN DASH} 71.0", 70.12),
        ("p90 ms", None, full.latency_ms.p90),
        ("p99 ms", None, full.latency_ms.p99),
        ("max ms", None, full.latency_ms.max),
        ("speed of float", "2.00\N{MULTIPLICATION SIGN}", 140.2 / 70.12),
        ("FPS model", None, full.fps),
        ("FPS frame", None, full.fps_end_to_end),
        ("mAP 50-95", "0.598", 0.5983),
        ("mAP 50", "0.897", 0.8971),
        ("recall small", "0.857 of 7", 0.857),
        ("recall medium", "0.941 of 612", 0.941),
        ("recall large", "0.972 of 403", 0.972),
        ("score shift", "-0.003", -0.0031),
        ("model MB", "4.62", 4.62),
        ("memory MB", "143", 143.4),
        ("GPU MB", "512", 512.4),
        ("power W", "5.12", 5.1234),
        ("energy J/frame", "0.357", 0.3571),
        ("net J/frame", "0.168", 0.1683),
        ("FPS per W", "2.80", 2.8003),
        ("heat °C", "61", 61.4),
    ):
        cell = shown.pop(heading)
        assert text in (None, cell.text)
        if isinstance(key, float):
            assert float(cell["data-key"]) == pytest.approx(key)
        else:
            assert cell["data-key"] == key
    assert list(shown) == ["artifact"]


def test_what_was_not_measured_is_never_a_zero_and_has_no_number_to_sort_by():
    nothing = dict.fromkeys(("map50_95", "map50", "recall_small", "peak_memory_mb", "size_mb"))
    bare = report(**nothing, data=None, ap50_95={}, temperature_c=None, moments=())
    shown = rows(page_of(parent(**METERED), bare))[1]
    for heading in ("mAP 50-95", "recall small", "memory MB", "model MB", "power W", "heat °C"):
        cell = shown[heading]
        assert "data-key" not in cell.attributes
        assert cell.text == "\N{EN DASH} not measured here"
        assert cell["title"] == "not measured here"


def test_a_figure_that_no_report_has_gets_a_note_and_no_column():
    page = page_of(report())
    assert "power W" not in rows(page)[0]
    notes = page.section("figures").one("ul", "notes").text
    assert "Power and energy: not measured here: no meter on this board." in notes
    assert "Not measured here: GPU MB." in notes
    assert "energy-1" not in [section["id"] for section in page.all("section")]


def test_an_emulators_speed_is_nowhere():
    emulated = PI.model_copy(update={"emulated": True})
    page = page_of(parent(host=emulated, **METERED), report(host=emulated, **METERED))
    for figure in ("70.1", "140 ", "14.1", "2.11", "1.42", "210 ms", "180 ms", "5.12", "0.357"):
        assert figure not in page.one("body").text
    assert rows(page)[0]["p50 ms"].text == "emulated"
    assert rows(page)[0]["mAP 50-95"].text == "0.598"
    assert "no speed is shown" in page.section("warnings").text
    ids = [section["id"] for section in page.all("section")]
    assert not {"latency-1", "energy-1", "distributions", "time"} & set(ids)


def test_what_could_mislead_is_flagged_in_the_row_and_said_above():
    page = page_of(
        parent(),
        report(44, **INT8, stable=False, p50_interval_ms=(40.2, 48.0), gate="failed"),
        report(throttled=True, steady=False, cores_used_by_others=1.24, **ESTIMATED),
    )
    flags = [[f.text for f in row["artifact"].all("span", "flag")] for row in rows(page)]
    assert flags == [
        [],
        ["gate failed", "unstable"],
        ["throttled", "not settled", "busy machine", "power estimated"],
    ]
    said = page.section("warnings").text
    for words in ("failed the gate", "from 40.2 to 48.0 ms", "throttled", "1.2 cores", "estimated"):
        assert words in said
    assert "estimated" in rows(page)[2]["power W"].text
    crowd = page_of(*(report(steady=False, warmup_s=n, threads=n) for n in (1, 2, 3, 4)))
    (item,) = crowd.section("warnings").all("li")
    assert item.text == "all 4 : latency had not settled when the warm-up ended"
    hot = report(runtime="tensorrt", gpu_mhz=1980.4, gpu_memory_mb=412.0, throttled=True)
    hot = hot.model_copy(update={"throttle_reasons": ("power cap", "hardware slowdown")})
    facts = page_of(hot).section("environments").text
    assert "clocks were held back: power cap, hardware slowdown" in facts
    assert "1980 MHz, mean" in facts
    assert "412 MB at most" in facts
    weak = report(throttled=False, throttle_reasons=("under-voltage",))
    assert "no: under-voltage" in page_of(weak).section("environments").text
    calm = page_of(report())
    assert not calm.all("aside")
    assert not calm.all("span", "flag")


def test_fastest_says_which_others_it_is_not_told_apart_from():
    near = report(70.3, **INT8)
    cards = page_of(parent(), report(70.1), near).one("div", "cards").text
    assert "fastest 70.1 ms, p50 ncnn fp16" in cards
    assert "not told apart from ncnn int8" in cards
    crowd = [report(70.1 + n / 100, threads=n) for n in range(1, 7)]
    assert "not told apart from 5 others" in page_of(*crowd).one("div", "cards").text
    far = page_of(parent(), report(70.1)).one("div", "cards").text
    assert "told apart" not in far


def test_an_estimate_is_never_the_least_energy():
    page = page_of(parent(**METERED), report(**{**ESTIMATED, "energy_per_frame_j": 0.01}))
    assert "least energy 0.357 J/frame ONNX Runtime fp32" in page.one("div", "cards").text


# ------------------------------------------------------------------------------------------- charts


def marks(section: Node) -> dict[str, str]:
    """What the wide chart says of each point, by its name, and its mark's class."""
    found = {}
    for group in section.one("svg", "wide").all("g", "point"):
        name, _, rest = group.one("title").text.partition(" mAP50-95")
        shape = next(n for tag in ("circle", "polygon") for n in group.all(tag, "mark"))
        found[name] = f"{shape['class']} {group['class']}{' front' if 'front' in rest else ''}"
    return found


def test_the_front_is_marked_and_what_is_beaten_is_not():
    page = page_of(parent(), report(), report(48, **INT8), report(80, **{**INT8, "threads": 1}))
    assert marks(page.section("latency-1")) == {
        "ncnn int8, 4 threads": "mark ncnn point front",
        "ONNX Runtime fp32, 4 threads": "mark onnxruntime point beaten",
        "ncnn fp16, 4 threads": "mark ncnn point beaten",
        "ncnn int8, 1 thread": "mark ncnn point beaten",
    }
    assert "On it: ncnn int8, 4 threads." in page.section("latency-1").text


def test_an_estimate_is_hollow_labelled_and_off_the_front():
    page = page_of(parent(**METERED), report(**{**ESTIMATED, "energy_per_frame_j": 0.01}))
    section = page.section("energy-1")
    assert marks(section)["ncnn fp16"] == "mark ncnn hollow point beaten"
    assert "estimated" in section.text
    only = page_of(parent(**ESTIMATED), report(**ESTIMATED)).section("energy-1")
    assert "no Pareto front" in only.text
    assert not only.all("path", "front")


def test_two_data_sets_get_a_chart_each_and_a_warning():
    coco = {"data": "/d/coco128.yaml", "split": "val"}
    page = page_of(parent(), report(), parent(**coco), report(**coco))
    assert {"latency-1", "latency-2"} <= {section["id"] for section in page.all("section")}
    assert "cannot be compared" in page.section("warnings").text


def test_the_histogram_holds_the_samples():
    (row,) = page_of(report()).section("distributions").one("svg", "wide").all("g", "row")
    assert "p50 70.1 ms" in row.one("title").text
    hill = row.one("path", "hill")["d"]
    assert hill.count("h") > 20
    bare = page_of(report(samples_ms=())).section("distributions")
    assert not bare.all("path", "hill")
    assert bare.all("line", "reach")


def test_fronts_that_end_at_one_height_share_a_line_for_their_names():
    def names(*reports: BenchReport) -> list[str]:
        chart = page_of(*reports).section("latency-1").one("svg", "wide")
        return [text.text for text in chart.all("text", "front-name")]

    assert names(parent(), report(18, host=NANO)) == ["jetson-nano; pi4b"]
    assert names(parent(), report(18, host=NANO, map50_95=0.5)) == ["pi4b", "jetson-nano"]
    assert names(parent(), report()) == []


def test_inferences_beyond_the_axis_are_counted():
    stalled = report(samples_ms=[70.0] * 397 + [900.0, 950.0, 990.0])
    section = page_of(stalled, parent()).section("distributions")
    assert "3 slower than the axis shows are not drawn." in section.text
    said = [row.one("title").text for row in section.one("svg", "wide").all("g", "row")]
    assert ["3 of 400 slower than this axis shows" in words for words in said] == [True, False]
    within = page_of(report(samples_ms=[70.0] * 400)).section("distributions").text
    assert "slower" not in within


def test_marks_that_take_the_focus_are_not_below_an_image():
    page = page_of(*MIXED)
    holders = [n for n in page.all("svg", "chart") if n.all("g", "point") or n.all("g", "row")]
    assert holders
    for chart in holders:
        assert chart["role"] == "group"
        assert chart["aria-label"]


def test_a_run_that_stood_still_is_told_without_a_ratio():
    still = [m.model_copy(update={"fps": 0.0}) for m in course(14, seconds=20)]
    section = page_of(
        report(sustained=True, moments=still), report(moments=still), report(threads=2)
    ).section("time")
    assert "0.00 FPS in the first tenth, 0.00 in the last" in section.text
    assert "20 slices: 0.00 to 0.00 FPS" in section.text


def test_a_runtimes_marks_are_of_one_colour_on_page_and_picture():
    style = page_of(report()).one("style").text
    (hue,) = re.findall(r"\.ncnn\{--hue:var\(--(\w+)\)\}", style)
    on_light, on_dark = re.findall(rf"--{hue}:(#\w+);", style)
    assert on_light == color_of("ncnn") != on_dark
    used = set(re.findall(r"var\(--([\w-]+)\)", style)) - {"hue", "part"}
    assert used <= set(re.findall(r"--([\w-]+): ?#", style))


def test_a_sustained_run_shows_its_fall_and_where_clocks_were_held_back():
    fall = course(15.2, seconds=600, throttled_from=260)
    section = page_of(report(sustained=True, moments=fall, throttled=True)).section("time")
    assert "15.2 FPS in the first tenth, 10.9 in the last (-28" in section.text
    chart = section.one("svg", "wide")
    assert len(chart.all("rect", "throttled")) == 1
    assert [len(chart.all("polyline", kind)) for kind in ("fps", "heat", "clock")] == [1, 1, 1]


def test_slices_of_turns_are_points_and_no_trend_is_made_of_them():
    turns = [m.model_copy(update={"t_s": 100 * m.t_s}) for m in course(14, seconds=5)]
    section = page_of(report(moments=turns)).section("time")
    assert len(section.all("circle", "dot")) == 15  # of three curves
    assert "5 slices: " in section.text
    assert "tenth" not in section.text
    assert "other processes had their turn" in section.text


def test_unknown_sensors_are_said_and_not_drawn():
    blind = [
        m.model_copy(update={"temperature_c": None, "cpu_mhz": None}) for m in course(14, seconds=9)
    ]
    section = page_of(report(moments=blind)).section("time")
    assert "Temperature and clock: not measured here." in section.text
    assert not section.all("polyline", "heat")


def test_of_many_classes_those_that_differ_most_come_first_and_the_rest_folds():
    one = {f"class {n:02}": 0.5 for n in range(80)}
    other = {name: 0.5 - n / 1000 for n, name in enumerate(one)}
    section = page_of(parent(ap50_95=one), report(ap50_95=other)).section("classes-1")
    first, rest = section.all("table", "classes")
    assert [th.text for th in first.one("tbody").all("th")][:2] == ["class 79", "class 78"]
    assert (len(first.one("tbody").all("tr")), len(rest.one("tbody").all("tr"))) == (20, 60)
    assert section.one("summary").text == "60 more"
    assert first.one("tbody").all("td")[0]["data-key"] == "0.5"


# ------------------------------------------------------------------------------------- environments


def test_every_run_tells_how_it_was_measured():
    page = page_of(parent(), report(**METERED))
    text = page.section("environments").text
    for fact in (
        "Raspberry Pi 4 Model B Rev 1.5",
        "Cortex-A72",
        "asimd",
        "6.6.51+rpt-rpi-v8",
        "lightmode on; fp16_arithmetic off",
        "400 inferences in 30.2 s, each within a whole frame of 16 images",
        "40 inferences in 5.2 s, until latency had settled",
        "3 fresh processes, p50 of each: 69.8, 70.1, 70.4 ms",
        "0.004 ms a frame",
        "measured by hwmon:ina219, of the whole board, 12.5 samples a second",
        "not measured here: no meter on this board",
        "2.71 W",
        "3.71 cores, 0.04 by all else on the machine",
        "1800 MHz, mean",
        "ondemand",
        "61.4 °C at most",
        "opencv 5.0.0",
        "passed",
        "runs/cells/artifacts/pi4b-ncnn-fp16-320",
        "210 ms",
        "180 ms",
    ):
        assert fact in text
    assert len(page.section("environments").all("details")) == 2


def test_what_an_update_changed_stands_with_its_machine_and_its_runs():
    updated = PI.model_copy(update={"os": "Debian 13", "kernel": "6.12.47", "ram_mb": 3729})
    page = page_of(parent(), report(host=updated))
    environments = page.section("environments")
    (card,) = environments.all("div", "card")
    assert "Linux 6.6.51+rpt-rpi-v8; Debian 13, Linux 6.12.47" in card.text
    assert "3793 MB; 3729 MB" in card.text
    systems = [run.text.split("system ")[1] for run in environments.all("details")]
    assert systems[0].startswith("Debian GNU/Linux 12")
    assert systems[1].startswith("Debian 13")


def test_two_boards_are_both_listed_and_their_rows_say_which():
    page = page_of(report(), report(18, host=NANO))
    assert [row["machine"].text for row in rows(page)] == ["pi4b", "jetson-nano"]
    environments = page.section("environments")
    assert [h.text for h in environments.all("h3")] == ["pi4b", "jetson-nano"]
    assert "Tegra X1" in environments.text
    assert "machine" not in rows(page_of(report()))[0]


# ------------------------------------------------------------------------------------ in a browser


@pytest.mark.slow
def test_a_browser_shows_it_without_an_error(tmp_path: Path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    file = tmp_path / "report.html"
    keys = """<script>
      const seen = [];
      document.querySelector("g.point[tabindex]").dispatchEvent(new FocusEvent("focus"));
      seen.push(tip.hidden);
      dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
      document.title = [...seen, tip.hidden].join();
    </script>"""
    file.write_text(render(MIXED).replace("</body>", f"{keys}</body>"), encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert '<button type="button">' in done.stdout  # the script ran to its end of the tables
    assert "<title>false,true</title>" in done.stdout  # a mark's tip comes, and Escape hides it
