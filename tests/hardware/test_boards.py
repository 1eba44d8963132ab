"""The table of boards, and the arithmetic of revision codes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from musgd_cli.hardware.boards import BOARDS, by_name, decode_pi_revision


def test_no_two_boards_share_a_mark() -> None:
    for marks in ("name", "compatible", "pi_types", "modules"):
        of_each = [getattr(board, marks) for board in BOARDS]
        flat = of_each if marks == "name" else [mark for group in of_each for mark in group]
        assert len(flat) == len(set(flat)), marks


@given(
    kind=st.integers(0, 0xFF),
    ram_code=st.integers(0, 7),
    other=st.integers(0, 2**32 - 1),
)
def test_revision_fields_come_back_whatever_the_other_bits(
    kind: int, ram_code: int, other: int
) -> None:
    fields = 0xFF << 4 | 7 << 20 | 1 << 23
    code = other & ~fields | kind << 4 | ram_code << 20 | 1 << 23
    revision = decode_pi_revision(code)
    assert revision is not None
    assert (revision.type, revision.ram_mb) == (kind, 256 << ram_code)


@given(st.integers(0, 2**32 - 1))
def test_old_style_codes_are_not_decoded(code: int) -> None:
    assert decode_pi_revision(code & ~(1 << 23)) is None


# Codes of real boards: the documentation's, and pull requests and issues against it.
@pytest.mark.parametrize(
    ("code", "board", "ram_mb"),
    [
        (0xA02082, "pi3", 1024),
        (0xA020D3, "pi3", 1024),
        (0x902120, "pi-zero2", 512),
        (0x2902120, "pi-zero2", 512),
        (0xB03115, "pi4b", 2048),
        (0xC03111, "pi4b", 4096),
        (0x80C03111, "pi4b", 4096),
        (0xD03115, "pi4b", 8192),
        (0xC03131, "pi400", 4096),
        (0xB03140, "cm4", 2048),
        (0xD04170, "pi5", 8192),
    ],
)
def test_revision_codes_of_real_boards(code: int, board: str, ram_mb: int) -> None:
    revision = decode_pi_revision(code)
    assert revision is not None
    assert revision.board is by_name(board)
    assert revision.ram_mb == ram_mb
