"""Programs of `test_jax.py`, which run on JAX in a process without TensorFlow.

    python tests/on_jax.py FOLDER

FOLDER contains models that TensorFlow saved before their first step, and `series`, dated rasters.
Trained models and results are written into it.
"""

import contextlib
import importlib.abc
import io
import json
import operator
import os
import runpy
import sys
from pathlib import Path
from unittest import mock

os.environ["KERAS_BACKEND"] = "jax"
# Compiling takes longer than these few steps.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(sys.argv[1]) / "compiled")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"


class NoTensorFlow(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")


sys.meta_path.insert(0, NoTensorFlow())

import jax  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

import sits_keras  # noqa: E402
from sits_keras import data  # noqa: E402
from sits_keras.callbacks import Checkpoints, History, StopWhenNotFinite  # noqa: E402
from sits_keras.cli import run  # noqa: E402

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
STEPS = 3
PAIRS = {"batch_size": 2, "seed": 5}


def make_series() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = ((2, 64, 70), (4, 80, 66))
    return [rng.integers(1, 6000, (*size, 4)).astype(np.uint16) for size in sizes]


def no_noise(shape, **kwargs):
    return ops.zeros(shape)


def run_steps(model: keras.Model) -> list[dict[str, float]]:
    """Run some steps without noise and return the terms of each."""
    pairs = data.array_pairs(make_series(), num_steps=STEPS, **PAIRS)
    with mock.patch("keras.random.normal", no_noise):
        return [
            model.train_on_batch(np.asarray(x), np.asarray(y), return_dict=True) for x, y in pairs
        ]


def train_as_tensorflow_does(folder: Path) -> None:
    for file in sorted(folder.glob("before-*.keras")):
        model = sits_keras.load_model(file)
        terms = run_steps(model)
        form = file.stem.removeprefix("before-")
        model.save(folder / f"jax-{form}.keras")
        (folder / f"jax-{form}.json").write_text(json.dumps(terms))


def train_encoder_as_tensorflow_does(folder: Path) -> None:
    """Train the shared encoder alone on crops of two windows a side, without random numbers."""
    model = sits_keras.load_model(folder / "encoder-before.keras")
    crops = np.load(folder / "crops.npz")
    with (
        mock.patch("keras.random.normal", no_noise),
        mock.patch("keras.random.uniform", lambda shape, **kwargs: 0.3 * ops.ones(shape)),
    ):
        terms = [
            model.train_on_batch(
                crops["x"], crops["y"], sample_weight=crops["weights"], return_dict=True
            )
            for _ in range(STEPS)
        ]
    model.save(folder / "jax-encoder.keras")
    (folder / "jax-encoder.json").write_text(
        json.dumps({k: float(v) for k, v in terms[-1].items()})
    )


def train_and_go_on(folder: Path) -> dict[str, object]:
    model = sits_keras.DisentangledSITS(CONFIG, seed=1)
    model.compile(steps_per_execution=2)
    series = make_series()
    callbacks = [
        Checkpoints(folder / "checkpoints"),
        History(folder / "history.csv", 0),
        StopWhenNotFinite(),
    ]
    model.fit(
        data.array_pairs(series, **PAIRS),
        steps_per_epoch=2,
        epochs=2,
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    )
    halfway = sits_keras.load_model(folder / "checkpoints" / "step-000000002.keras")
    halfway.fit(
        data.array_pairs(series, start_step=2, num_steps=2, **PAIRS), shuffle=False, verbose=0
    )
    whole, resumed = (
        [
            np.asarray(v)
            for v in (*one.variables, *one.optimizer.variables, one.seed_generator.state)
        ]
        for one in (model, halfway)
    )
    before = model.get_weights()
    ((x, y),) = data.array_pairs(series, num_steps=1, **PAIRS)
    np.save(folder / "predicted.npy", model.predict((np.asarray(x), np.asarray(y)), verbose=0))
    one_batch = data.array_pairs(series, num_steps=1, **PAIRS)
    refused = []
    for call in (model.fit, model.evaluate, model.predict):
        try:
            call(data.array_pairs(series, **PAIRS), verbose=0)
        except sits_keras.SitsKerasError as error:
            refused.append(str(error))
    return {
        "endless pairs": refused,
        "steps": int(model.optimizer.iterations),
        "inner steps": [int(one.iterations) for one in model.optimizer.optimizers],
        "seed_state": int(model.seed_generator.state[1]),
        "resumed is whole": all(map(np.array_equal, whole, resumed)),
        "scores": model.evaluate(one_batch, verbose=0, return_dict=True),
        "weights after evaluation": all(map(np.array_equal, before, model.get_weights())),
    }


def run_example_in_bfloat16(folder: Path) -> dict[str, object]:
    options = {
        **{"out": folder / "example", "data": folder / "series", "dtype": "mixed_bfloat16"},
        **{"width": 1, "batch-size": 2, "steps": 2, "steps-per-epoch": 2},
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    printed = io.StringIO()
    with mock.patch.object(sys, "argv", ["", *arguments]), contextlib.redirect_stdout(printed):
        runpy.run_path(str(EXAMPLES / "train_on_jax.py"), run_name="__main__")
    model = sits_keras.load_model(folder / "example")
    image = jax.ShapeDtypeStruct((1, *model.config.image_shape), "float32")
    generated = jax.eval_shape(model.generate, image, image)

    def terms_of(x, y, generated):
        terms = model.generator_terms(x, y, generated, training=False)
        return {**terms, **model.discriminator_terms(x, y, generated.images, training=False)}

    terms = jax.eval_shape(terms_of, image, image, generated)
    return {
        "printed": printed.getvalue(),
        "terms": sorted({str(term.dtype) for term in terms.values()}),
        "outputs": [str(output.dtype) for output in generated],
        "variables": sorted({str(v.dtype) for v in model.trainable_variables}),
        "weights are finite": all(np.isfinite(w).all() for w in model.get_weights()),
    }


def ask_for_tensorflow(folder: Path) -> dict[str, str]:
    messages = {}
    for name in ("hub.load", "train"):
        try:
            operator.attrgetter(name)(sits_keras)
        except sits_keras.SitsKerasError as error:
            messages[name] = f"{type(error).__name__}: {error}"
    try:
        _ = data.pair_dataset
    except ImportError as error:
        messages["pair_dataset"] = f"{type(error).__name__}: {error}"
    messages["exit code"] = str(run(["train", str(folder), str(folder / "out")]))
    return messages


CONFIG = sits_keras.ModelConfig(width=1, shared_channels=2, exclusive_dim=3)

if __name__ == "__main__":
    target = Path(sys.argv[1])
    train_as_tensorflow_does(target)
    train_encoder_as_tensorflow_does(target)
    results = {
        "training": train_and_go_on(target),
        "bfloat16": run_example_in_bfloat16(target),
        "messages": ask_for_tensorflow(target),
        "tensorflow": "tensorflow" in sys.modules,
    }
    pairs = data.array_pairs(make_series(), num_steps=STEPS, **PAIRS)
    np.save(target / "jax-pairs.npy", [[np.asarray(one) for one in pair] for pair in pairs])
    (target / "results.json").write_text(json.dumps(results))
