"""Size, difference, latency and conversion of encoders as ONNX and LiteRT files, beside TensorFlow.

    python benchmarks/formats.py sits_rgbn_small [--batch 32]

Needs sits_keras[onnx], onnxruntime and ai-edge-litert. Each measurement is the median of several
runs in turn on one thread, in one process, so that another program slows all of them. The size is
that of the file for windows. Seconds of an export are of the processor, for all files.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnxruntime
from ai_edge_litert.interpreter import Interpreter

import sits_keras
from sits_keras import hub
from sits_keras.hub.conversion import OPSET, SUFFIXES
from sits_keras.tensorflow_import import tf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("preset", help="Name or folder of a preset.")
    parser.add_argument("--batch", type=int, default=32, help="Windows at a time.")
    parser.add_argument("--runs", type=int, default=20, help="Runs of each format.")
    args = parser.parse_args()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    model = sits_keras.from_preset(args.preset)
    print(f"opset {OPSET}, onnxruntime {onnxruntime.__version__}, batch {args.batch}\n")
    print(
        "| encoder | format | MB | largest difference | time relative to TensorFlow | export, s |"
    )
    print("|---|---|---|---|---|---|")
    for part in ("shared", "exclusive"):
        with tempfile.TemporaryDirectory() as folder:
            measure(model, part, Path(folder), args)


def measure(model, part: str, folder: Path, args: argparse.Namespace) -> None:
    """Print a row for each format of an encoder."""
    exports = {}

    def export(file_format: str) -> Path:
        begin = time.process_time()
        out = hub.export(model, folder / file_format, part, file_format=file_format)
        exports[file_format] = time.process_time() - begin
        return out

    encoder = hub.load(export("savedmodel"))
    shape = (args.batch, 64, 64, len(encoder.bands))
    images = np.random.default_rng(0).uniform(0, 0.4, shape).astype(np.float32)
    serve = encoder.module.signatures["serving_default"]
    run = {"savedmodel": lambda: serve(inputs=tf.constant(images))["features"].numpy()}
    files = {"savedmodel": folder / "savedmodel"}
    for file_format, suffix in SUFFIXES.items():
        files[file_format] = export(file_format) / f"windows{suffix}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(files["onnx"], options)
    run["onnx"] = lambda: session.run(["features"], {"images": images})[0]
    runner = Interpreter(str(files["litert"]), num_threads=1).get_signature_runner()
    run["litert"] = lambda: runner(images=images)["features"]
    features = {name: one() for name, one in run.items()}
    seconds = {name: [] for name in run}
    for _ in range(args.runs):
        for name, one in run.items():
            begin = time.perf_counter()
            one()
            seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, file in files.items():
        paths = [path for path in file.rglob("*") if path.is_file()] if file.is_dir() else [file]
        size = sum(path.stat().st_size for path in paths) / 1e6
        difference = np.abs(features[name] - features["savedmodel"]).max()
        ratio = medians[name] / medians["savedmodel"]
        cells = (part, name, f"{size:.2f}", f"{difference:.1e}", f"{ratio:.2f}")
        print(f"| {' | '.join(cells)} | {exports[name]:.0f} |", flush=True)


if __name__ == "__main__":
    main()
