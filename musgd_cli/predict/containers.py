"""Whether a video file is all there, by the lengths that its own container states.

A decoder ends a file that was cut short as it ends a whole one, and counts of frames are estimates,
or count what an edit list leaves out: neither tells damage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_MP4_BOXES = frozenset(
    b"ftyp moov mdat free skip wide moof mfra sidx ssix styp uuid meta pnot udta emsg prft".split()
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"


def is_cut_short(path: Path) -> bool:
    """Say whether a file ends before its container does; of AVI, MP4, MOV, MKV and WebM.

    Of another kind, or one that states no length, as a recording that was never ended, nothing can
    be told, and it is not.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(12)
            if head[:4] == b"RIFF":
                return _end_of_riff(file, size) > size
            if head[4:8] in _MP4_BOXES:
                return _end_of_mp4(file, size) > size
            if head[:4] == _EBML:
                return _end_of_matroska(file) > size
    except OSError:
        pass  # whoever decodes it tells
    return False


def _end_of_riff(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:  # beyond 1 GB an AVI is several of them
        file.seek(end)
        head = file.read(8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length == 0:
            break
        end += 8 + length
    return end


def _end_of_mp4(file: BinaryIO, size: int) -> int:
    """ISO/IEC 14496-12, 4.2: each box is its length, its type, and a longer length after a 1."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] not in _MP4_BOXES or length < 8:  # 0: to the end of the file
            break
        end += length
    return end


def _end_of_matroska(file: BinaryIO) -> int:
    """RFC 8794, 4: an element is its id, its length and so many bytes; one segment holds it all."""
    file.seek(4)
    length = _length(file)
    if length is None:
        return 0
    file.seek(length, os.SEEK_CUR)
    if file.read(4) != _SEGMENT:
        return 0
    length = _length(file)
    return 0 if length is None else file.tell() + length


def _length(file: BinaryIO) -> int | None:
    """Read a variable-size integer; ``None``: unknown, as of what is streamed."""
    first = file.read(1)
    if not first or first == b"\0":
        return None
    more = 8 - first[0].bit_length()
    data = bytes([first[0] ^ (0x80 >> more)]) + file.read(more)
    value = int.from_bytes(data, "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value
