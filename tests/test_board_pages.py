"""The pages about boards: their commands work as written, their figures say where they are from."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from musgd_cli.hardware import boards, detection

REPOSITORY = Path(__file__).parents[1]
PAGES = {page.stem: page.read_text("utf-8") for page in (REPOSITORY / "docs/boards").glob("*.md")}
RECORDED = {"pi4b": "pi4b", "jetson-nano": "jetson-nano", "x86-gpu": "x86-gpu"}
"""The recorded board that each page is about."""

VENV_PYTHON = "~/.local/share/musgd/venv/bin/python"
ELSEWHERE = ("grep", "ls", "nvidia-smi", "rm", "scp", "ssh", "sudo", "echo", VENV_PYTHON)
"""Programs of the system, of which only the spelling of the line can be checked here."""


def commands() -> list[tuple[str, str]]:
    """Every line of every shell block, with its page."""
    return [
        (page, line)
        for page, text in PAGES.items()
        for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line
    ]


def of(*programs: str) -> list[tuple[str, str]]:
    """The commands that begin with one of the programs, settings of the environment left out."""
    bare = [(page, re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line)) for page, line in commands()]
    return [(page, line) for page, line in bare if line.split()[0] in programs]


def test_there_is_a_page_for_each_board_and_no_command_is_left_out() -> None:
    assert set(PAGES) == set(RECORDED)
    known = of("musgd", "./install.sh", "sh", "python3", *ELSEWHERE)
    assert len(known) == len(commands())


@pytest.mark.parametrize(("page", "line"), of("musgd"))
def test_a_musgd_command_parses(
    page: str, line: str, check_command_line: Callable[[str], None]
) -> None:
    check_command_line(line)


@pytest.mark.parametrize(("page", "line"), of("./install.sh", "sh"))
def test_an_installation_can_be_planned(page: str, line: str) -> None:
    program, *arguments = shlex.split(line)
    if program == "sh":  # of a wheelhouse, which is another folder's installer, and its options
        script, *arguments = arguments
        assert Path(script).name == "install.sh"
        at = arguments.index("--offline")
        del arguments[at : at + 2]
    tree = REPOSITORY / "tests/boards" / RECORDED[page]
    done = subprocess.run(
        ["./install.sh", *arguments, "--dry-run", "--root", tree],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"board     {page}:")


@pytest.mark.parametrize(("page", "line"), of("python3"))
def test_a_command_of_the_agent_parses(page: str, line: str) -> None:
    _, program, *arguments = shlex.split(line)
    assert program == "nano_agent.py"
    agent = runpy.run_path(str(REPOSITORY / "musgd_cli/board" / program))
    assert agent["parser"]().parse_args(arguments).verb == arguments[0]


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_shell_reads_the_line(page: str, line: str) -> None:
    subprocess.run(["sh", "-n", "-c", line], check=True)


@pytest.mark.parametrize("page", PAGES)
def test_inline_commands_parse(page: str, check_command_line: Callable[[str], None]) -> None:
    for line in re.findall(r"`(musgd [a-z]+ [^`]+)`", PAGES[page]):
        check_command_line(line)


@pytest.mark.parametrize("page", PAGES)
def test_every_table_says_where_each_line_is_from(page: str) -> None:
    tables = re.findall(r"(?:^\|.*\n)+", PAGES[page], re.MULTILINE)
    assert tables
    for table in tables:
        head, _, *rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            for line in table.splitlines()
        ]
        assert head[-1] == "source", head
        assert rows
        for row in rows:
            assert len(row) == len(head), row
            assert row[-1], row


@pytest.mark.parametrize("page", PAGES)
def test_it_says_that_we_measured_nothing(page: str) -> None:
    assert "measured by us" in " ".join(PAGES[page].split())


@pytest.mark.parametrize("page", PAGES)
def test_its_links_within_the_repository_lead_somewhere(page: str) -> None:
    folder = REPOSITORY / "docs/boards"
    for target in re.findall(r"\]\(([^)h#][^)]*)\)", PAGES[page]):
        assert (folder / target).exists(), target
    headings = {
        re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGES[page], re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGES[page])) <= headings


def test_what_pi4bs_page_says_of_other_boards_and_of_containers() -> None:
    page = " ".join(PAGES["pi4b"].split())
    extras = {board.name: set(board.extras) for board in boards.BOARDS}
    assert extras["pi4b"] == {"ncnn", "litert", "onnx"}
    assert "installs ncnn, LiteRT and ONNX Runtime" in page
    assert extras["pi400"] == extras["cm4"] == {"ncnn", "onnx"}
    assert "`./install.sh --extras litert` adds it" in page
    told = detection.detect(REPOSITORY / "tests/boards/pi4b-docker", {})
    assert "the revision code in `/proc/cpuinfo` tells the board" in page
    assert "revision code" in told.decided_by


def test_pi4bs_predictions_follow_from_what_is_said_below_them() -> None:
    ends = r"([\d.]+) to ([\d.]+)"
    rows = re.findall(
        rf"^\| (\d+) \| [\d.]+ \| [\d, ]+ \| {ends} \| {ends} \|", PAGES["pi4b"], re.M
    )
    assert len(rows) == 6
    for px, *printed in rows:
        area = (640 / int(px)) ** 2
        fp32 = (1000 / (67.7 * 6.45) * area, 31 / 5.4 * area)
        for text, value in zip(printed, (*fp32, *(1.37 * end for end in fp32)), strict=True):
            assert float(text) == float(f"{value:.2g}"), (px, text, value)


def test_they_are_linked_from_the_readme() -> None:
    readme = (REPOSITORY / "README.md").read_text("utf-8")
    for page in PAGES:
        assert f"(docs/boards/{page}.md)" in readme
