"""What ``trtexec`` of TensorRT 8.2.1 prints and writes, without TensorRT or a GPU.

Where its forms come from:

* banner, options and their help, the order of all that is said, and exit codes: NVIDIA/TensorRT,
  release 8.2, ``samples/trtexec/trtexec.cpp`` and ``samples/common/sampleOptions.cpp``;
* the times that ``--exportTimes`` writes, warm-up included: ``exportJSONTrace`` in
  ``samples/common/sampleReporting.cpp`` of the same release;
* the lines between, and how they are dated: a public log of TensorRT 8.2.1 on a Tegra X1, compute
  capability 5.3, of a lane detection model; NVIDIA/TensorRT#2188 and
  Tianxiaomo/pytorch-YOLOv4#493 show the same of v8201. The summary's form is that of
  WongKinYiu/yolov9#519, YOLOv8n under JetPack 4.6;
* what a broken ONNX ends with: the title of Tianxiaomo/pytorch-YOLOv4#493, and trtexec.cpp;
* a builder that is killed: ceccocats/tkDNN#26, where the shell says ``Killed``.

``FAKE_TRTEXEC`` is a JSON object that chooses what happens:

* ``latency_ms``: of an inference; every fiftieth takes half as long again;
* ``build``: ``killed``, ``unreadable``, ``full``, ``memory``, or ``slow`` for ten seconds;
* ``run``: ``fails``, or ``silent`` of when it began;
* ``averages``: lines between, each of which stands for 100 inferences, however many there are;
* ``hurry``: the times are made up at once, so that no sensor can be sampled meanwhile;
* ``lacks``: an option that it does not know, and ``hides`` one that its help leaves out;
* ``version``: the number in the banner;
* ``meter``: a file whose milliwatts change meanwhile; ``vanishes``: it goes away midway;
* ``truth``: a file that gets a line a run: joules and seconds of the timed window, worked out from
  the formula of the power and not from samples.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

HOW = json.loads(os.environ.get("FAKE_TRTEXEC", "{}"))
HELP = """=== Model Options ===
  --onnx=<file>               ONNX model

=== Build Options ===
  --workspace=N               Set workspace size in megabytes (default = 16)
  --fp16                      Enable fp16 precision, in addition to fp32 (default = disabled)
  --int8                      Enable int8 precision, in addition to fp32 (default = disabled)
  --saveEngine=<file>         Save the serialized engine
  --loadEngine=<file>         Load a serialized engine

=== Inference Options ===
  --iterations=N              Run at least N inference iterations (default = 10)
  --warmUp=N                  Run for N milliseconds to warmup before measuring performance
  --duration=N                Run performance measurements for at least N seconds wallclock time
  --exposeDMA                 Serialize DMA transfers to and from device (default = disabled).
  --buildOnly                 Skip inference perf measurement (default = disabled)

=== Reporting Options ===
  --avgRuns=N                 Report performance measurements averaged over N iterations
  --exportTimes=<file>        Write the timing results in a json file (default = disabled)
"""
KNOWN = {word.partition("=")[0] for word in HELP.split() if word.startswith("--")}


def say(text: str, level: str = "I") -> None:
    print(f"[{time.strftime('%m/%d/%Y-%H:%M:%S')}] [{level}] {text}", flush=True)


def end(verdict: str) -> None:
    banner(verdict)
    sys.exit(0 if verdict == "PASSED" else 1)


def banner(verdict: str) -> None:
    version = HOW.get("version", "8201")
    print(
        f"&&&& {verdict} TensorRT.trtexec [TensorRT v{version}] # {' '.join(sys.argv)}", flush=True
    )


# ------------------------------------------------------------------------------------------ build


def build(options: dict[str, str]) -> None:
    say("TensorRT version: 8.2.1")
    say("[TRT] [MemUsageChange] Init CUDA: CPU +229, GPU +0, now: CPU 248, GPU 3325 (MiB)")
    say("Start parsing network model")
    model = Path(options["--onnx"])
    how = HOW.get("build")
    if how == "unreadable" or not model.read_bytes().endswith(b"."):
        say(f"[TRT] ModelImporter.cpp:735: Failed to parse ONNX model from file: {model}", "E")
        say("Failed to parse onnx file", "E")
        say("Finish parsing network model")
        say("Parsing model failed", "E")
        say("Engine set up failed", "E")
        end("FAILED")
    say("Finish parsing network model")
    say("[TRT] Detected 1 inputs and 1 output network tensors.")
    file = Path(options["--saveEngine"])
    file.write_bytes(b"half of an eng")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "slow":
        time.sleep(10)
    if how == "memory":
        say("[TRT] 1: [defaultAllocator.cpp::allocate::20] Cuda Runtime (out of memory)", "E")
    if how in ("memory", "full"):
        if how == "full":
            say("Saving engine to file failed.", "E")
        say("Engine set up failed", "E")
        end("FAILED")
    file.write_bytes(b"engine of " + model.read_bytes())
    say("Engine built in 184.708 sec.")
    end("PASSED")


# ------------------------------------------------------------------------------------------ power


def watts(at_s: float) -> float:
    """A ramp with a slow wave on it: what the board draws so long after the first inference."""
    return 4.0 + 0.7 * at_s + 0.8 * math.sin(math.pi * at_s)


def joules(begin_s: float, end_s: float) -> float:
    """The integral of that."""

    def until(t: float) -> float:
        return 4.0 * t + 0.35 * t * t - 0.8 / math.pi * math.cos(math.pi * t)

    return until(end_s) - until(begin_s)


class Meter(threading.Thread):
    """Has a sensor's file show what is drawn."""

    def __init__(self, file: Path, begin: float, end_s: float) -> None:
        super().__init__(daemon=True)
        self.file, self.begin, self.end_s = file, begin, end_s

    def run(self) -> None:
        while (at := time.monotonic() - self.begin) < self.end_s + 1:
            if HOW.get("vanishes") and at > self.end_s / 2:
                self.file.unlink(missing_ok=True)
                return
            beside = self.file.with_suffix(".new")
            beside.write_text(f"{1000 * watts(at):.0f}\n")
            beside.rename(self.file)
            time.sleep(0.004)


# ------------------------------------------------------------------------------------------ timing


def run(options: dict[str, str]) -> None:
    warmup_ms, duration_s = int(options["--warmUp"]), int(options["--duration"])
    content = Path(options["--loadEngine"]).read_bytes()
    if not content.startswith(b"engine of ") or HOW.get("run") == "fails":
        say("[TRT] 1: [stdArchiveReader.cpp::StdArchiveReader::30] Serialization assertion", "E")
        say("Engine set up failed", "E")
        end("FAILED")
    say("[TRT] Loaded engine size: 7 MiB")
    say("Engine loaded in 0.0742 sec.")
    say("Using random values for input images")
    if HOW.get("run") != "silent":
        say("Starting inference")
    begin = time.monotonic()
    total_ms = warmup_ms + 1000 * duration_s
    if HOW.get("meter"):
        Meter(Path(HOW["meter"]), begin, total_ms / 1000).start()
    rows = trace(total_ms)
    if not HOW.get("hurry"):
        time.sleep(max(0.0, begin + rows[-1]["endD2hMs"] / 1000 - time.monotonic()))
    timed = [row for row in rows if row["startComputeMs"] >= warmup_ms]
    first, last = timed[0]["startH2dMs"] / 1000, timed[-1]["endD2hMs"] / 1000
    if HOW.get("truth"):
        with Path(HOW["truth"]).open("a") as file:
            file.write(f"{json.dumps([joules(first, last), last - first])}\n")
    say(f"Warmup completed {len(rows) - len(timed)} queries over {warmup_ms} ms")
    say(f"Timing trace has {len(timed)} queries over {last - first:.5f} s")
    say("")
    say("=== Trace details ===")
    say("Trace averages of 100 runs:")
    for _ in range(HOW.get("averages", len(timed) // 100)):
        say(f"Average on 100 runs - GPU latency: {timed[0]['computeMs']:g} ms")
    say("")
    say("=== Performance summary ===")
    say(f"Throughput: {len(timed) / (last - first):.4f} qps")
    say("Latency: " + summary([row["latencyMs"] for row in timed]))
    say("End-to-End Host Latency: " + summary([row["endToEndMs"] for row in timed]))
    say("GPU Compute Time: " + summary([row["computeMs"] for row in timed]))
    say("Explanations of the performance metrics are printed in the verbose logs.")
    say("")
    lines = (", ".join(f'"{key}" : {value:g}' for key, value in row.items()) for row in rows)
    text = "\n, ".join(f"{{ {line} }}" for line in lines)
    Path(options["--exportTimes"]).write_text(f"[\n  {text}\n]\n")
    end("PASSED")


def trace(total_ms: float) -> list[dict[str, float]]:
    """One inference after the other, until the one that begins at the end or beyond."""
    rows: list[dict[str, float]] = []
    at, latency = 0.5, HOW.get("latency_ms", 20.0)
    while not rows or rows[-1]["startComputeMs"] < total_ms:
        takes = latency * (1.5 if len(rows) % 50 == 49 else 1 + 0.002 * (len(rows) % 7))
        copied_in, copied_out = at + 0.25, at + takes - 0.125
        rows.append(
            {
                "startEnqMs": at + 0.1,
                "endEnqMs": at + 5.1,
                "startH2dMs": at,
                "endH2dMs": copied_in,
                "startComputeMs": copied_in,
                "endComputeMs": copied_out,
                "startD2hMs": copied_out,
                "endD2hMs": at + takes,
                "h2dMs": 0.25,
                "computeMs": takes - 0.375,
                "d2hMs": 0.125,
                "latencyMs": takes,
                "endToEndMs": takes,
            }
        )
        at += takes + 0.0625
    return rows


def summary(values: Sequence[float]) -> str:
    ordered, n = sorted(values), len(values)
    late = ordered[max(n - 1 - int(0.01 * n), 0)]
    return (
        f"min = {ordered[0]:g} ms, max = {ordered[-1]:g} ms, mean = {sum(values) / n:g} ms, "
        f"median = {ordered[n // 2]:g} ms, percentile(99%) = {late:g} ms"
    )


def main() -> None:
    banner("RUNNING")
    pairs = [argument.partition("=") for argument in sys.argv[1:]]
    options = {name: value for name, _, value in pairs}
    if "--help" in options:
        print("\n".join(line for line in HELP.splitlines() if HOW.get("hides", "#") not in line))
        sys.exit(0)
    unknown = [name for name in options if name not in KNOWN or name == HOW.get("lacks")]
    for name in unknown:
        say(f"Unknown option: {name} {options[name]}", "E")
    if unknown:
        print(HELP)
        end("FAILED")
    (build if "--onnx" in options else run)(options)


if __name__ == "__main__":
    main()
