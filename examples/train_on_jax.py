r"""Train on JAX from arrays in memory, without TensorFlow, and print the speed.

    python examples/train_on_jax.py --out run                         # procedural series
    python examples/train_on_jax.py --out run --data SERIES           # your own rasters
    python examples/train_on_jax.py --out run --data SERIES --width 64 --batch-size 64 \
        --dtype mixed_bfloat16 --steps 150000 --steps-per-epoch 1000  # GPU

SERIES is a source of `sits-keras prepare`, such as a folder with a sub-folder of <YYYY-MM-DD>.tif
rasters for each place, or a folder of records (which TensorFlow reads). All series are kept on the
device, at 2 bytes a value. An interrupted run is resumed from the newest checkpoint.

A step and the sampling of its batch are compiled functions on the device; the host does not wait
for them until the epoch ends. "% of peak" compares the operations per second of a step, as XLA
counts them before optimisation, with the rate of large matrix products of the same type, measured
here.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np

from sits_keras import (
    DisentangledSITS,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SitsKerasError,
)
from sits_keras.callbacks import Checkpoints, History
from sits_keras.data import array_pairs, synthetic
from sits_keras.data.preparation.granule_reader import GranuleReader
from sits_keras.data.sources.series import find_series
from sits_keras.data.tiling import Window
from sits_keras.errors import DivergedError
from sits_keras.saving import current_step, save_model
from sits_keras.trainers.optimizers import default_optimizer

NUM_PLACES = 12


class Speed(keras.callbacks.Callback):
    """Print the time of a step after each epoch; the first step, which compiles, separately."""

    def __init__(self, operations: float, peak: float):
        super().__init__()
        self.operations = operations
        self.peak = peak
        self.compiled = False
        self.first = self.last = 0.0
        self.num_steps = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self.last = time.perf_counter()
        self.num_steps = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count steps, and print the time of the first one."""
        if self.compiled:
            self.num_steps += 1
            return
        jax.block_until_ready(logs)
        print(f"compiled, and the first step done, in {time.perf_counter() - self.last:.1f} s")
        self.compiled = True
        self.last = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The logs of the epoch have been awaited, so its last step is done.
        """Print the time of a step, its rate and the terms of the epoch."""
        seconds = (time.perf_counter() - self.last) / max(self.num_steps, 1)
        terms = ", ".join(f"{name} {value:.4f}" for name, value in (logs or {}).items())
        step = current_step(self.model)
        if not all(math.isfinite(value) for value in (logs or {}).values()):
            raise DivergedError(f"A term is not finite at step {step}: {terms}.")
        rate = self.operations / seconds
        print(
            f"step {step}: {seconds:.4f} s a step, {rate / 1e12:.3f} Tflop/s, "
            f"{rate / self.peak:.1%} of peak; {terms}",
            flush=True,
        )


def main() -> None:
    """Train, and save the model."""
    args = parse_arguments()
    series = load_series(args.data)
    print(
        f"{len(series)} series, {sum(one.nbytes for one in series) / 1e6:.0f} MB, "
        f"on {jax.devices()[0].device_kind}"
    )
    model = make_model(args)
    checkpoints = Checkpoints(args.out / "checkpoints")
    step = checkpoints.restore(model)
    pairs = array_pairs(
        series,
        args.batch_size,
        seed=args.seed,
        band_max=model.config.band_max,
        start_step=step,
    )
    peak = measure_matrix_products(jnp.dtype(model.compute_dtype))
    operations = count_operations(model, args.batch_size)
    print(
        f"{operations / 1e9:.2f} Gflop a step; matrix products of {model.compute_dtype} run at "
        f"{peak / 1e12:.3f} Tflop/s"
    )
    model.fit(
        pairs,
        initial_epoch=step // args.steps_per_epoch,
        epochs=args.steps // args.steps_per_epoch,
        steps_per_epoch=args.steps_per_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[
            Speed(operations, peak),
            History(args.out / "history.csv", step),
            checkpoints,
        ],
    )
    save_model(model, args.out / "model.keras")
    print(f"{args.out / 'model.keras'}: {current_step(model)} steps")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("run"), help="folder to write")
    parser.add_argument("--data", type=Path, help="series or records; procedural by default")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--steps-per-epoch", type=int, default=100)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--dtype", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=OptimizerConfig.learning_rate)
    parser.add_argument("--lambda-l1", type=float, default=ObjectiveConfig.lambda_l1)
    return parser.parse_args()


def make_model(args: argparse.Namespace) -> DisentangledSITS:
    """Create and compile the model."""
    model = DisentangledSITS(ModelConfig(width=args.width), seed=args.seed, dtype=args.dtype)
    optimizer = OptimizerConfig(learning_rate=args.learning_rate)
    model.compile(
        default_optimizer(optimizer),
        default_optimizer(optimizer),
        ObjectiveConfig(lambda_l1=args.lambda_l1),
    )
    return model


def load_series(source: Path | None) -> list[np.ndarray]:
    """Return each series as `(time, height, width, bands)` uint16 stored values."""
    if source is None:
        return [
            synthetic.make_series(seed, height=256, width=256, num_cloudy=0).images
            for seed in range(NUM_PLACES)
        ]
    if (source / "manifest.json").is_file():
        import tensorflow as tf

        from sits_keras.data import read_blocks, read_manifest

        tf.config.set_visible_devices([], "GPU")  # its memory is for JAX
        return [images for _, images in read_blocks(read_manifest(source))]
    return [
        np.stack([read_whole(granule) for granule in one.granules]) for one in find_series([source])
    ]


def read_whole(granule: Any) -> np.ndarray:
    """Return all pixels of a granule."""
    with GranuleReader(granule, ModelConfig.bands) as reader:
        return reader.read(Window(0, 0, reader.grid.height, reader.grid.width))


def count_operations(model: DisentangledSITS, batch_size: int) -> float:
    """Return the floating-point operations of a training step."""
    image = jax.ShapeDtypeStruct((batch_size, *model.config.image_shape), "float32")
    state = tuple(
        [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    )
    lowered = jax.jit(model.train_step).lower(state, (image, image))
    operations: float = lowered.cost_analysis()["flops"]
    return operations


def measure_matrix_products(dtype: Any, repeats: int = 5) -> float:
    """Return the best rate of large square matrix products, in operations per second."""
    size = 1024 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), dtype)
    multiply = jax.jit(lambda a, b: a @ b)
    multiply(matrix, matrix).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready([multiply(matrix, matrix) for _ in range(4)])
        seconds.append((time.perf_counter() - start) / 4)
    return 2 * size**3 / min(seconds)


if __name__ == "__main__":
    try:
        main()
    except SitsKerasError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Interrupted. Repeat the command to resume.")
