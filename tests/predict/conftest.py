"""Clips and a camera for tests: nothing real is needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
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
    """Serve so many frames at a rate as MJPEG over HTTP, then hang up; return the URL."""
    servers = []

    def serve(frames: int, fps: float) -> str:
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

            def log_message(self, *arguments: object) -> None:
                """Say nothing."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://anna:secret@127.0.0.1:{server.server_port}/camera"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()
