"""Train one model on all devices of one or several machines with `model.fit`.

    python examples/train_distributed.py RECORDS                 # all GPUs of this machine
    python examples/train_distributed.py RECORDS --cpus 2        # logical CPUs, for a trial

    # The same command on each host, with its own index:
    python examples/train_distributed.py RECORDS --hosts a:2222 b:2222 --index 0

RECORDS is a folder that `sits-keras prepare` wrote and that every host can read. In each epoch, one
host reads each record. A step is the same on any number of devices: `--batch-size` is the total
over all devices. The first host writes `history.csv` and `model.keras`.
"""

import argparse
import json
import os
from pathlib import Path

import keras
import tensorflow as tf

from sits_keras import DisentangledSITS, ModelConfig
from sits_keras.data import pair_dataset


def main() -> None:
    """Train on all devices."""
    args = parse_arguments()
    if args.hosts:
        task = {"type": "worker", "index": args.index}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": args.hosts}, "task": task})
    if args.cpus:
        (cpu,) = tf.config.list_physical_devices("CPU")
        parts = [tf.config.LogicalDeviceConfiguration()] * args.cpus
        tf.config.set_logical_device_configuration(cpu, parts)
    # Must be created before any TensorFlow operation.
    strategy = (
        tf.distribute.MultiWorkerMirroredStrategy()
        if args.hosts
        else tf.distribute.MirroredStrategy()
    )
    if args.batch_size % strategy.num_replicas_in_sync:
        raise SystemExit(f"--batch-size must be a multiple of {strategy.num_replicas_in_sync}.")

    def pairs(context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Return the pairs of one host: its part of each batch, split over its devices."""
        num_hosts = context.num_input_pipelines
        worker = (context.input_pipeline_id, num_hosts)
        own = pair_dataset(args.records, args.batch_size // num_hosts, seed=0, worker=worker)
        return own.rebatch(context.get_per_replica_batch_size(args.batch_size))

    with strategy.scope():
        model = DisentangledSITS(ModelConfig(width=args.width))
        model.compile()
    first = args.index == 0
    model.fit(
        strategy.distribute_datasets_from_function(pairs),
        steps_per_epoch=args.steps_per_epoch,
        epochs=args.epochs,
        shuffle=False,
        verbose=2 if first else 0,
        callbacks=[keras.callbacks.CSVLogger("history.csv")] if first else [],
    )
    if first:
        model.save("model.keras")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("records", type=Path)
    parser.add_argument(
        "--hosts", nargs="*", help="HOST:PORT of each host, in the same order on all"
    )
    parser.add_argument("--index", type=int, default=0, help="index of this host, from 0")
    parser.add_argument("--cpus", type=int, default=0, help="number of logical CPU devices")
    parser.add_argument("--batch-size", type=int, default=64, help="pairs, over all devices")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--steps-per-epoch", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=150)
    return parser.parse_args()


if __name__ == "__main__":
    main()
