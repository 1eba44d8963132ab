"""What is drawn can be seen and read, wherever the box lies and however small the picture is."""

from __future__ import annotations

import numpy as np
import pytest

from musgd_cli.predict.drawing import LEAST_SIDE, PALETTE, Painter, _ink_on, colour_of

GREY = 90


def blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def boxes(*rows: tuple[float, ...]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 6)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((picture == colour).all(axis=2).sum())


@pytest.mark.parametrize("shape", [(480, 640), (48, 64), (2160, 3840), (1, 900), (900, 1)])
@pytest.mark.parametrize("corner", ["upper left", "lower right", "all of it"])
def test_box_and_label_lie_inside_the_picture(shape: tuple[int, int], corner: str) -> None:
    height, width = shape
    box = {
        "upper left": (0, 0, width / 3, height / 3),
        "lower right": (width * 0.9, height * 0.9, width, height),
        "all of it": (0, 0, width, height),
    }[corner]
    image = blank(height, width)
    picture = Painter(["a"]).picture(image, boxes((*box, 0.5, 0)))
    assert (image == GREY).all(), "the frame itself is not drawn into"
    # A patch of text, or of a picture one pixel high as much as there is of it.
    assert has(picture, colour_of(0)) > (150 if min(shape) > 1 else 10)


def test_a_small_picture_is_enlarged_by_whole_pixels_until_text_can_be_read() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    picture = Painter(["a"]).picture(image, boxes())
    assert max(picture.shape) >= LEAST_SIDE
    factor = picture.shape[0] // 60
    np.testing.assert_array_equal(picture[::factor, ::factor], image)
    large = blank(LEAST_SIDE, 20)
    assert Painter(["a"]).picture(large, boxes()).shape == large.shape


def test_the_better_box_lies_on_top() -> None:
    same = (100, 100, 300, 300)
    picture = Painter(["a", "b"]).picture(blank(480, 640), boxes((*same, 0.9, 1), (*same, 0.3, 0)))
    assert tuple(picture[200, 100].tolist()) == colour_of(1)


def test_the_frame_rate_is_written_only_where_there_is_one() -> None:
    image = blank(480, 640)
    painter = Painter(["a"])
    assert (painter.picture(image, boxes()) == image).all()
    assert not (painter.picture(image, boxes(), fps=24.9)[-30:, -120:] == GREY).all()


def test_classes_beyond_the_palette_take_it_again() -> None:
    assert colour_of(len(PALETTE)) == colour_of(0)
    assert len(set(PALETTE)) == len(PALETTE)


@pytest.mark.parametrize("rgb", PALETTE)
def test_labels_can_be_read_on_their_colour(rgb: tuple[int, int, int]) -> None:
    # WCAG 2's contrast of text, at least 4.5 to 1 (its level AA).
    def luminance(colour: tuple[int, ...]) -> float:
        linear = [
            c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
            for c in (channel / 255 for channel in colour)
        ]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    ink = _ink_on((rgb[2], rgb[1], rgb[0]))
    low, high = sorted((luminance(rgb), luminance(ink)))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_a_name_that_the_font_lacks_is_still_told_apart() -> None:
    row = (100, 100, 300, 300, 0.5)
    one = Painter(["ascii", "крест"]).picture(blank(480, 640), boxes((*row, 1)))
    other = Painter(["ascii", "класс"]).picture(blank(480, 640), boxes((*row, 1)))
    letters = Painter(["ascii", "?????"]).picture(blank(480, 640), boxes((*row, 1)))
    assert (one != letters).any()
    assert (other != letters).any()
