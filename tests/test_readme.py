"""Every command and every line of code in README.md works as written."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from musgd_cli.__main__ import main

README = Path(__file__).parents[1] / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
INLINE = re.findall(r"`((?:[A-Z_]+=\S+ )?musgd [^`]+)`", README.read_text("utf-8"))
VERBS = re.findall(r"^\| `musgd ([a-z]+)` \|", README.read_text("utf-8"), re.MULTILINE)


def blocks(*languages: str) -> list[str]:
    return [text for language, text in BLOCKS if language in languages]


def commands() -> list[str]:
    """The command lines of the README: of shell blocks, of console blocks after $, and inline."""
    typed = [line for text in blocks("sh") for line in text.splitlines() if line]
    shown = [
        line.removeprefix("$ ")
        for text in blocks("console")
        for line in text.splitlines()
        if line.startswith("$ ")
    ]
    # The table names verbs alone, of which some want an argument; it has a test of its own.
    verbs = {f"musgd {verb}" for verb in VERBS}
    inline = [re.sub(r"^[A-Z_]+=\S+ ", "", line) for line in INLINE if line not in verbs]
    return list(dict.fromkeys([*typed, *shown, *inline]))


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("musgd ")])
def test_a_musgd_command_parses(line: str, check_command_line: Callable[[str], None]) -> None:
    check_command_line(line)


@pytest.mark.parametrize("line", [line for line in commands() if not line.startswith("musgd ")])
def test_another_command_is_one_of_install_sh(line: str, repository: Path) -> None:
    program, verb, *rest = shlex.split(line, comments=True)
    if program == "sh":  # of a wheelhouse, which another command makes: its own, as of no checkout
        house, script = verb.split("/")
        verb, *rest = rest
        assert (script, verb, rest.pop()) == ("install.sh", "--offline", house)
        program = f"./{script}"
    assert program == "./install.sh"
    if verb == "--extras":  # of a name
        rest.pop()
    usage = subprocess.run(
        [repository / program, "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert re.search(rf"^  ({re.escape(program)} )?{verb} ", usage, re.MULTILINE)
    assert all((repository / path).exists() for path in rest)


def test_the_commands_that_ci_runs_are_in_the_readme(repository: Path) -> None:
    ci = re.findall(r"\./install\.sh \w+", (repository / ".ci/run").read_text())
    assert ci
    assert set(ci) <= {" ".join(line.split()[:2]) for line in commands()}


def test_the_table_of_verbs_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    panel = capsys.readouterr().out.split("─ Commands", maxsplit=1)[1]
    assert sorted(VERBS) == sorted(re.findall(r"^│ ([a-z]+) ", panel, re.MULTILINE))


@pytest.mark.parametrize("text", blocks("console"))
def test_a_sample_is_what_is_printed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    command, *sample = text.splitlines()
    _, *arguments = shlex.split(command.removeprefix("$ "))
    main(arguments)
    assert "\n".join(sample) in capsys.readouterr().out


@pytest.mark.parametrize("text", blocks("python"))
def test_the_code_runs(text: str) -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(2, 1)
    names = {"model": model}
    exec(compile(text, str(README), "exec"), names)
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.clone()
    names["optimizer"].step()
    assert not torch.equal(before, model.weight)


@pytest.mark.parametrize("text", blocks("toml"))
def test_the_settings_file_settles(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "musgd.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MUSGD_TRAIN__BATCH", "4")
    assert main(["plan", "--set", "optim.lr=0.01"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"train\.epochs +100 +musgd\.toml", out)
    assert re.search(r"train\.batch +4 +MUSGD_TRAIN__BATCH", out)
    assert re.search(r"optim\.lr +0\.01 +--set.* 0\.02 \(musgd\.toml\)", out)


def test_its_links_lead_somewhere(repository: Path) -> None:
    for target in re.findall(r"\]\(([^)h][^)]*)\)", README.read_text("utf-8")):
        assert (repository / target).exists(), target
