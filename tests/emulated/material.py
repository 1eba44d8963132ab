"""What is measured on the emulated board: a model that can be known by heart, a real one's photos.

``material.py FOLDER`` makes in it ``cells/ncnn`` (an artifact), ``cells/data`` (a data set that it
scores perfectly on), ``cells/images``, ``tiny.yaml`` (a model that trains in seconds), and
``yolo/images`` (the two photos that come with Ultralytics).
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import tiny_artifact
from tiny_model import MODEL

N_IMAGES = 6
"""Two steps of three."""


def main(folder: Path) -> None:
    tiny_artifact.make_ncnn(folder / "cells/ncnn", target="pi4b")
    data = tiny_artifact.make_data(folder / "cells/data", n_images=N_IMAGES)
    shutil.copytree(data.parent / "images/val", folder / "cells/images")
    (folder / "tiny.yaml").write_text(MODEL)
    ultralytics = find_spec("ultralytics")
    if ultralytics is not None and ultralytics.origin is not None:
        assets = Path(ultralytics.origin).parent / "assets"
        shutil.copytree(assets, folder / "yolo/images", ignore=shutil.ignore_patterns("*.py*"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
