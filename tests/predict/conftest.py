"""Clips and a camera for tests: nothing real is needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import pytest
import tiny_artifact as tiny

FRAMES = 30


@pytest.fixture
def make_clip() -> Callable[..., Path]:
    """Write a video whose frame i has a red object in place i of the tiny model's grid."""

    def make(path: Path, frames: int = FRAMES, fps: float = 20) -> Path:
        codec = "mp4v" if path.suffix == ".mp4" else "MJPG"
        size = (tiny.IMGSZ, tiny.IMGSZ)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, size)
        assert writer.isOpened()
        for i in range(frames):
            writer.write(tiny.draw([(i % tiny.CELLS**2, 0)]))
        writer.release()
        return path

    return make


@pytest.fixture
def camera() -> Iterator[Callable[[int, float], str]]:
    """Serve so many frames at a rate as MJPEG over HTTP, then hang up or fall silent.

    Return the URL.
    """
    servers = []
    over = threading.Event()

    def serve(frames: int, fps: float, silent: bool = False) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                for i in range(frames):
                    _, data = cv2.imencode(".jpg", tiny.draw([(i % tiny.CELLS**2, 0)]))
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}"
                    try:
                        self.wfile.write(f"{head}\r\n\r\n".encode() + data.tobytes() + b"\r\n")
                    except OSError:
                        return
                    time.sleep(1 / fps)
                if silent:
                    over.wait(60)

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://anna:secret@127.0.0.1:{server.server_port}/camera"

    yield serve
    over.set()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def make_matroska() -> Callable[..., Path]:
    """Write a video whose frames are due at these milliseconds, in an exact container."""

    def element(tag: str, content: bytes) -> bytes:
        return bytes.fromhex(tag) + (len(content) | 1 << 56).to_bytes(8, "big") + content

    def number(tag: str, value: int) -> bytes:
        return element(tag, value.to_bytes(4, "big"))

    def make(path: Path, times_ms: Sequence[int]) -> Path:
        size = number("B0", tiny.IMGSZ) + number("BA", tiny.IMGSZ)
        track = number("D7", 1) + number("73C5", 1) + number("83", 1)
        track += element("86", b"V_MJPEG") + element("E0", size)
        clusters = b""
        for i, due in enumerate(times_ms):
            _, data = cv2.imencode(".jpg", tiny.draw([(i % tiny.CELLS**2, 0)]))
            block = element("A3", b"\x81\0\0\x80" + data.tobytes())
            clusters += element("1F43B675", number("E7", due) + block)
        info = element("1549A966", number("2AD7B1", 1_000_000))
        segment = element("18538067", info + element("1654AE6B", element("AE", track)) + clusters)
        path.write_bytes(element("1A45DFA3", element("4282", b"matroska")) + segment)
        return path

    return make
