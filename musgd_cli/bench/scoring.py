"""A model over labelled images, as Ultralytics' ``val`` runs it: what accuracy is computed from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from musgd_cli.bench import accuracy
from musgd_cli.data.dataset import DataSet
from musgd_cli.data.images import read_image
from musgd_cli.records import Artifact
from musgd_cli.runtime.detector import Detector

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from musgd_cli.runtime.engine import Engine


def detections(
    engine: Engine, artifact: Artifact, data_set: DataSet, images: Iterable[Path]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Yield what a model finds in each image and what is there.

    Yields:
        (n, 6) x1, y1, x2, y2, score, class, best first, and (m, 5) x1, y1, x2, y2, class; both in
        pixels of the original image.

    Raises:
        MusgdError: An image or its labels are damaged.
    """
    detector = Detector(
        engine,
        artifact,
        conf=accuracy.CONF,
        iou=accuracy.NMS_IOU,
        max_det=accuracy.MAX_DET,
        scoring=True,
    )
    for path in images:
        image = read_image(path)
        height, width = image.shape[:2]
        objects = accuracy.corner_boxes(data_set.labels(path), width, height)
        yield detector.detect(image), objects
