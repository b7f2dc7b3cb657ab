"""Speed of `sits_keras.data.pair_dataset`, compared with reading and parsing the same records.

    python benchmarks/input_pipeline.py [--records 256] [--dates 12] [--batch 64] [--cores 2]

Writes records of 128 x 128 px and measures alternately in one run, so that only ratios matter:

- pairs per second, with and without augmentation and context, and the corresponding visits to
  records, compared with the records per second that TensorFlow reads and parses from the same
  files in parallel;
- the same in the first epoch, in which each record is read completely to verify its checksum;
- the fraction of a training step that waits for its batch, and the ratio of a step to a step on a
  batch in memory, which includes the processor time of sampling.

On a machine with other jobs, the processor time is more reliable than the rate.
"""

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

SIDE = 128
RGBN = ("B02", "B03", "B04", "B08")
PAIRS_PER_RECORD = 4
READ_AHEAD = 20  # batches that may be sampled before timing starts
VARIANTS: dict[str, dict[str, Any]] = {
    "pairs": {},
    "pairs, not augmented": {"augment": False},
    "pairs, context of 16 px": {"context": (16, 16)},
    "pairs, context of 16 px, not augmented": {"context": (16, 16), "augment": False},
    "pairs, a visit for each": {"pairs_per_record": 1},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=256)
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64, help="pairs in a batch")
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20, help="training steps; 0 for none")
    parser.add_argument("--width", type=int, default=16, help="of the model that is trained")
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):  # before TensorFlow counts the cores
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), args)


def measure(folder: Path, args: argparse.Namespace) -> None:
    import tensorflow as tf

    from sits_keras.data import pair_dataset
    from sits_keras.data.records import parse

    manifest = make_records(folder, args.records, args.dates)
    megabytes = sum(shard.bytes for shard in manifest.shards) / args.records / 1e6
    raw = iter(
        tf.data.Dataset.from_tensor_slices(manifest.files)
        .repeat()
        .interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )
    epoch = max(1, PAIRS_PER_RECORD * args.records // args.batch)  # batches
    num_batches = max(100, epoch)

    def draw(**options: Any) -> Iterator[Any]:
        return iter(pair_dataset(manifest, args.batch, seed=0, **options))

    begun = time.perf_counter()
    first = draw()
    made = time.perf_counter() - begun
    first_epoch = timed(first, epoch, args.batch)
    streams = {name: draw(**options) for name, options in VARIANTS.items()}
    for stream in streams.values():
        skip(stream, PAIRS_PER_RECORD * epoch)  # past the first epoch
    raw_times, times = [], {name: [] for name in streams}
    for _ in range(args.repeats):
        skip(raw, args.records)
        raw_times.append(timed(raw, 2 * args.records, 1))
        for name, stream in streams.items():
            skip(stream, READ_AHEAD)
            times[name].append(timed(stream, num_batches, args.batch))

    print(f"{machine(args.cores)}; {args.records} records of {args.dates} x {SIDE} x {SIDE} x 4,")
    print(f"{megabytes:.2f} MB each; batches of {args.batch}; medians of {args.repeats} runs;")
    print(f"{PAIRS_PER_RECORD} pairs per visit; the stream starts after {made:.3f} s\n")
    print("| | per second | CPU us each | visits / raw records |\n|---|---|---|---|")
    raw_rate, raw_cpu = (statistics.median(values) for values in zip(*raw_times, strict=True))
    print(f"| records read and parsed | {raw_rate:.0f} | {raw_cpu:.0f} | |")
    print(f"| pairs, first epoch | {first_epoch[0]:.0f} | {first_epoch[1]:.0f} | |")
    for name, pairs in times.items():
        rate, cpu = (statistics.median(values) for values in zip(*pairs, strict=True))
        per_visit = VARIANTS[name].get("pairs_per_record", PAIRS_PER_RECORD)
        shares = [
            one / per_visit / other for (one, _), (other, _) in zip(pairs, raw_times, strict=True)
        ]
        print(f"| {name} | {rate:.0f} | {cpu:.0f} | {statistics.median(shares):.2f} |")
    if args.steps:
        print_waiting(pair_dataset(manifest, args.batch // 2, seed=0), args)


def print_waiting(pairs: Iterable[Any], args: argparse.Namespace) -> None:
    """Print the durations of steps on sampled batches and on a batch in memory, alternately."""
    import tensorflow as tf

    from sits_keras import DisentangledSITS, ModelConfig

    model = DisentangledSITS(ModelConfig(width=args.width))
    model.compile()
    step = tf.function(model.train_step)
    stream = iter(pairs)
    batch = next(stream)
    for _ in range(3):
        step(batch)
    waits, drawn, there = [], [], []
    for _ in range(args.steps):
        begun = time.perf_counter()
        new = next(stream)
        waits.append(time.perf_counter() - begun)
        float(step(new)["loss"])
        drawn.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        float(step(batch)["loss"])
        there.append(time.perf_counter() - begun)
    print(f"\ntraining, width {args.width}, batches of {args.batch // 2}, {args.steps} steps each:")
    print(
        f"{statistics.median(drawn):.3f} s per step, {100 * sum(waits) / sum(drawn):.2f} % waiting"
    )
    ratio = statistics.median(drawn) / statistics.median(there)
    print(f"for its batch; {ratio:.3f} times a step on a batch in memory")


def timed(stream: Iterator[Any], count: int, size: int) -> tuple[float, float]:
    """Return elements per second, and processor microseconds each, of `count` times `size`."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(stream)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return count * size / wall, 1e6 * cpu / (count * size)


def skip(stream: Iterator[Any], count: int) -> None:
    for _ in range(count):
        next(stream)


def make_records(folder: Path, num_records: int, num_dates: int) -> Any:
    import numpy as np

    from sits_keras.data.records import Block, Manifest, serialize, write_shard
    from sits_keras.data.tiling import Window

    rng = np.random.default_rng(0)
    dates = tuple(f"2020-01-{day + 1:02d}" for day in range(num_dates))
    block = Block("noise", 0, Window(0, 0, SIDE, SIDE), dates)
    shards = []
    for index in range(0, num_records, 64):
        records = (
            serialize(block, rng.integers(1, 6000, (num_dates, SIDE, SIDE, 4)).astype(np.uint16))
            for _ in range(min(64, num_records - index))
        )
        shards.append(write_shard(folder / f"shard-{index:05d}.tfrecord", records, ""))
    return Manifest(folder, RGBN, "", tuple(shards), (), {}, {}, "")


def machine(cores: int) -> str:
    import keras
    import numpy as np
    import tensorflow as tf

    packages = ", ".join(
        f"{name} {module.__version__}"
        for name, module in (("TensorFlow", tf), ("Keras", keras), ("NumPy", np))
    )
    return f"{platform.machine()}, {cores} cores, Python {platform.python_version()}, {packages}"


if __name__ == "__main__":
    main()
