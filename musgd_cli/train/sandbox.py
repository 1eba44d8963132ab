"""Ultralytics on a leash: no network, no installs, no word on stdout, no file of the user's.

`prepare` must run before anything here imports ``ultralytics``; it is cheap to call again.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from musgd_cli.installation import ExtraError, how_to_add

# Read by Ultralytics at import: no DNS probe, no pip or apt, no banner, and checkpoints only by
# weights_only with its allow-list, which also keeps it from eval() on a model's `activation:`.
_ENVIRONMENT = {
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "false",
    "YOLO_VERBOSE": "false",
    "ULTRALYTICS_SAFE_LOAD": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}

# With this key in the environment Ultralytics uploads runs to its platform.
_UPLOAD_KEY = "ULTRALYTICS_API_KEY"

_INTEGRATIONS = (
    "clearml",
    "comet",
    "dvc",
    "mlflow",
    "raytune",
    "tensorboard",
    "wandb",
    "vscode_msg",
    "openvino_msg",
)
_SETTINGS: dict[str, bool | str] = {
    "sync": False,
    "api_key": "",
    "openai_api_key": "",
    **dict.fromkeys(_INTEGRATIONS, False),
}

# A missing font is fetched by a HEAD and a GET that YOLO_OFFLINE does not stop.
_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")

_prepared = False


def require_installed() -> None:
    """Make sure that what training needs is there, without loading it.

    Raises:
        UnsupportedError: torch or Ultralytics is not installed.
    """
    for module in ("torch", "torchvision", "ultralytics"):
        if importlib.util.find_spec(module) is None:
            raise ExtraError(f"{module} is not installed here", "train")


def prepare() -> None:
    """Import Ultralytics with every outward door shut.

    Raises:
        UnsupportedError: torch or Ultralytics is not installed, or cannot be loaded.
    """
    global _prepared
    if _prepared:
        return
    require_installed()
    imported_before = "ultralytics" in sys.modules
    config = _private_config()
    os.environ.update(_ENVIRONMENT, YOLO_CONFIG_DIR=str(config))
    os.environ.pop(_UPLOAD_KEY, None)
    # OpenMP's threads spin long while they wait, which stalls a step where other processes want the
    # same cores. Seconds a step, one run each of 10 to 45 steps on a 2-core EPYC, two threads,
    # YOLO26n at 160 px, batch 8, idle and beside two busy processes: as it comes .135, and no
    # result within 45 s; spinning briefly .146 and .64; not at all .250 and .52.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    threads = os.environ.get("OMP_NUM_THREADS")
    try:
        import torch  # noqa: F401  # first, so that its thread pool does not see Ultralytics' OMP_NUM_THREADS=1
        from ultralytics.utils import LOGGER, SETTINGS
        from ultralytics.utils.events import events
    except (ImportError, OSError) as error:
        raise ExtraError(
            f"Ultralytics cannot be loaded: {error}",
            "train",
            f"{how_to_add('train')}; on a bare Debian also opencv-python-headless",
        ) from error
    finally:
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
        else:
            os.environ["OMP_NUM_THREADS"] = threads
    if imported_before:
        # It has read the user's own settings: change what it holds in memory, not the user's file.
        dict.update(SETTINGS, _SETTINGS)
        _override_constants(config)
    elif any(SETTINGS.get(key) != value for key, value in _SETTINGS.items()):
        SETTINGS.update(_SETTINGS)
    events.enabled = False
    # It logs to stdout, which belongs to --json. Without a handler, errors go to stderr.
    LOGGER.handlers.clear()
    LOGGER.setLevel(logging.ERROR)
    _prepared = True


def _private_config() -> Path:
    """Return a folder for Ultralytics' settings and fonts that is ours and writable."""
    import platformdirs

    folder = platformdirs.user_cache_path("musgd") / "ultralytics"
    try:
        _place_fonts(folder / "Ultralytics")
    except OSError:
        folder = Path(tempfile.mkdtemp(prefix="musgd-ultralytics-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        _place_fonts(folder / "Ultralytics")
    return folder


def _place_fonts(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass  # the fonts may be there from before while the folder is no longer writable
    missing = [folder / name for name in _FONTS if not (folder / name).exists()]
    spec = importlib.util.find_spec("matplotlib")
    if not missing or spec is None or not spec.submodule_search_locations:
        return
    package = Path(next(iter(spec.submodule_search_locations)))
    for font in missing:
        shutil.copyfile(package / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", font)


def _override_constants(config: Path) -> None:
    """Change what Ultralytics derived from the environment before we could set it.

    Its modules import these by name, so each holds a copy.
    """
    constants: dict[str, Any] = {
        "ONLINE": False,
        "AUTOINSTALL": False,
        "SAFE_LOAD": True,
        "VERBOSE": False,
        "USER_CONFIG_DIR": config / "Ultralytics",
    }
    loaded = [module for name, module in sys.modules.items() if name.startswith("ultralytics.")]
    for module in loaded:
        for name, value in constants.items():
            if name in vars(module):
                setattr(module, name, value)
