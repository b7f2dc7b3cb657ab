"""Train a model on one device, then on two, and print the results as JSON.

A process of its own, for devices are made before TensorFlow does anything else.
"""

import contextlib
import json
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from sits_keras import DisentangledSITS, ModelConfig
from sits_keras.errors import ConfigError
from sits_keras.saving import current_step

NUM_STEPS = 4
CONFIG = ModelConfig(width=1, shared_channels=2, exclusive_dim=3)


ENCODER_CONFIG = ModelConfig(width=1, shared_channels=2, exclusive_dim=3, padding="context")
# Eq. 1 does not depend on the number of devices; the InfoNCE loss between windows does.
ENCODER_ONLY = {
    **dict.fromkeys(("lambda_l1", "lambda_kl", "lambda_adversarial"), 0.0),
    "lambda_shared": 1.0,
}


def make_encoder_model(**objective: float) -> DisentangledSITS:
    model = DisentangledSITS(ENCODER_CONFIG, seed=3)
    optimizers = [keras.optimizers.SGD(0.05) for _ in range(2)]
    model.compile(*optimizers, {**ENCODER_ONLY, **objective})
    return model


def make_model() -> DisentangledSITS:
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05))  # not blind to scale
    return model


def train(model: DisentangledSITS, pairs: tf.data.Dataset) -> dict:
    steps = []
    each = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda _, logs: steps.append({k: float(v) for k, v in logs.items()})
    )
    history = model.fit(pairs, epochs=1, shuffle=False, verbose=0, callbacks=[each]).history
    return {
        "steps": steps,
        "epoch": {name: float(value) for name, (value,) in history.items()},
        "weights": np.concatenate([to_numpy(variable).ravel() for variable in model.weights]),
        "seed_state": to_numpy(model.seed_generator.state),
        "step": current_step(model),
    }


def to_numpy(variable: keras.Variable) -> np.ndarray:
    return keras.ops.convert_to_numpy(variable)


def main(folder: Path) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    strategy = tf.distribute.MirroredStrategy()
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1, 1, (2, NUM_STEPS * 4, 64, 64, 4)).astype(np.float32)
    pairs = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    results = {"replicas": strategy.num_replicas_in_sync}
    for name, scope in (("one", contextlib.nullcontext()), ("two", strategy.scope())):
        with scope:
            model = make_model()
        results[name] = train(model, pairs)
    model.save(folder / "two.keras")
    crops = rng.uniform(-1, 1, (2, 8, 206, 206, 4)).astype(np.float32)
    crops = tf.data.Dataset.from_tensor_slices((*crops, np.ones((8, 8, 8), np.float32))).batch(4)
    for name, scope in (("one", contextlib.nullcontext), ("two", strategy.scope)):
        with scope():
            encoder = make_encoder_model()
        results[f"encoder {name}"] = train(encoder, crops)
        with scope():
            encoder = make_encoder_model(lambda_global_info_nce=1.0)
        results[f"windows {name}"] = train(encoder, crops)
    loaded = keras.saving.load_model(folder / "two.keras")
    results["loaded"] = np.concatenate([to_numpy(variable).ravel() for variable in loaded.weights])
    results["optimizers"] = [type(one).__name__ for one in loaded.optimizer.optimizers]
    with strategy.scope():
        model = DisentangledSITS(CONFIG)
        try:
            model.compile(keras.optimizers.Adam(global_clipnorm=1.0))
        except ConfigError as error:
            results["clipped"] = str(error)
    json.dump(results, sys.stdout, default=np.ndarray.tolist)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
