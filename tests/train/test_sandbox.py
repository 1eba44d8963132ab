from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from musgd_cli.errors import ExitCode, UnsupportedError
from musgd_cli.train import sandbox

REPORT = """
import json, os, sys
attempts = []
def witness(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        attempts.append(event)
sys.addaudithook(witness)
{before}
from musgd_cli.train import sandbox
sandbox.prepare()
sandbox.prepare()
from ultralytics.nn import tasks
from ultralytics.utils import AUTOINSTALL, LOGGER, ONLINE, SETTINGS, USER_CONFIG_DIR
from ultralytics.utils.callbacks.base import add_integration_callbacks
from ultralytics.utils.events import events
LOGGER.info("a word too many")
LOGGER.error("a real failure")
sys.stdout.write(json.dumps({{
    "attempts": attempts,
    "settings": {{k: v for k, v in SETTINGS.items() if isinstance(v, bool)}},
    "online": ONLINE, "install": AUTOINSTALL, "safe": tasks.SAFE_LOAD, "events": events.enabled,
    "config": str(USER_CONFIG_DIR),
    "threads": os.environ.get("OMP_NUM_THREADS"),
    "key": os.environ.get("ULTRALYTICS_API_KEY"),
}}))
"""


def prepared(home: Path, before: str = "") -> tuple[dict, str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("YOLO_", "ULTRALYTICS_", "OMP_", "XDG_"))
    }
    environment |= {"HOME": str(home), "ULTRALYTICS_API_KEY": "ul_" + "0" * 40}
    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(before=before)],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


def test_every_door_is_shut(tmp_path):
    report, stderr = prepared(tmp_path)
    assert report["attempts"] == []
    assert not any(report["settings"].values())
    assert not report["online"]
    assert not report["install"]
    assert not report["events"]
    assert report["safe"]
    assert report["key"] is None
    assert report["threads"] is None  # Ultralytics sets 1, also for everything we start
    config = Path(report["config"])
    assert config.is_relative_to(tmp_path / ".cache" / "musgd")
    assert (config / "Arial.ttf").stat().st_size > 0
    assert (config / "Arial.Unicode.ttf").stat().st_size > 0
    assert not (tmp_path / ".config").exists()
    assert "a word too many" not in stderr
    assert "a real failure" in stderr


def test_ultralytics_loaded_before_is_shut_in_memory_and_its_settings_file_left_alone(tmp_path):
    # Offline for its own import, which is not ours to answer for.
    load = (
        "os.environ.update(YOLO_OFFLINE='1', YOLO_VERBOSE='false')\n"
        "import ultralytics.nn.tasks, ultralytics.utils\n"
        "ultralytics.utils.ONLINE = True"
    )
    report, _ = prepared(tmp_path, load)
    assert report["attempts"] == []
    assert not any(report["settings"].values())
    assert not report["online"]
    assert not report["install"]
    assert report["safe"]
    theirs = json.loads((tmp_path / ".config" / "Ultralytics" / "settings.json").read_text())
    assert theirs["sync"] is True


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / ".cache").write_text("a file where a folder should be")
    report, _ = prepared(tmp_path)
    config = Path(report["config"])
    assert not config.is_relative_to(tmp_path)
    assert not config.exists()  # gone with the process


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(sandbox.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError) as caught:
        sandbox.require_installed()
    assert caught.value.exit_code == ExitCode.UNSUPPORTED
    assert "[train]'" in caught.value.mend
