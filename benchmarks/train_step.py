"""Speed of a training step on this CPU, compared with plain PyTorch and with matrix products.

    pip install torch==2.13.0    # only for this benchmark
    python benchmarks/train_step.py [--width 16] [--batch 32] [--repeats 15] [--networks]
    python benchmarks/train_step.py --memory --width 8 --batch 4
    python benchmarks/train_step.py --encoder --batch 64    # without PyTorch

A step includes all networks, Adam and metrics, as in `fit`. Each implementation has its own
process, so that their thread pools do not interfere. They run alternately, and are verified to
give the same terms and updates for the same weights, images and noise. The operations of a step
are computed by formula (convolutions and dense layers, two operations per multiply-add, including
the border) and compared with the rate of matrix products.

With --encoder, the step trains the shared encoder alone on pairs of windows with context: each
window by itself, or four windows in a crop of 128 px.
"""

import argparse
import multiprocessing
import os
import platform
import re
import statistics
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import numpy as np

from sits_keras.config import GRID_SIZE, IMAGE_SIZE, ModelConfig

NETWORKS = ("shared_encoder", "exclusive_encoder", "decoder", "discriminator")
CHECKED_RATE = 0.01
GEMM_SIZE = 2048
MEMORY_STEPS = (200, 1000, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32, help="pairs")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each")
    parser.add_argument("--repeats", type=int, default=15, help="steps of each, in turns")
    parser.add_argument("--dtype", choices=["float32", "mixed_bfloat16"], default="float32")
    parser.add_argument("--compiled", action="store_true", help="torch.compile for PyTorch")
    parser.add_argument("--jit", action="store_true", help="XLA for ours")
    parser.add_argument("--networks", action="store_true", help="each network by itself, too")
    parser.add_argument(
        "--memory", action="store_true", help="of 2,000 steps of ours, nothing else"
    )
    parser.add_argument(
        "--encoder", action="store_true", help="training of the shared encoder alone, nothing else"
    )
    args = parser.parse_args()
    config = ModelConfig(width=args.width)
    if args.encoder:
        measure_encoder(args)
    elif args.memory:
        measure_memory(config, args)
    else:
        measure(config, args)


def measure(config: ModelConfig, args: argparse.Namespace) -> None:
    batch = make_batch(config, args.batch)
    ours = Worker(make_ours, config, batch, *options(args, args.jit))
    theirs = Worker(make_theirs, config, batch, *options(args, args.compiled))
    print(f"{machine(args.threads)}, {ours('versions')}, {theirs('versions')}")
    print(f"width {args.width}, batches of {args.batch} pairs, {args.dtype}", end="")
    print(f"; medians of {args.repeats} alternating runs\n")

    noise, terms, before, after = ours("descend", CHECKED_RATE)
    check(terms, before, after, *theirs("descend", before, noise, CHECKED_RATE))

    for worker in (ours, theirs):
        worker("seconds", 3)
    times = in_turns(lambda w: w("seconds", 1)[0], (ours, theirs), args.repeats)
    rates = in_turns(lambda w: w("gemm", GEMM_SIZE, 3), (ours, theirs), 3)
    peak = max(map(max, rates))
    operations = step_operations(config) * 2 * args.batch / 1e9
    print(f"\nfloat32 matrix product of {GEMM_SIZE}: {max(rates[0]):.0f} GFLOP/s in TensorFlow,")
    print(f"{max(rates[1]):.0f} in PyTorch; a step is {operations:.1f} GFLOP\n")
    print("| step | s | GFLOP/s | fraction of matrix product |\n|---|---|---|---|")
    for name, each in zip(("ours", "PyTorch"), times, strict=True):
        rate = operations / statistics.median(each)
        print(f"| {name} | {statistics.median(each):.4f} | {rate:.0f} | {rate / peak:.2f} |")
    print_ratio("\nours / PyTorch", *times)

    if args.networks:
        print("\n| network | pass | ours, s | PyTorch, s | ratio |\n|---|---|---|---|---|")
        for network in NETWORKS:
            for backward in (False, True):
                call = ("network_seconds", network, backward, 3)
                both = in_turns(lambda w, call=call: min(w(*call)), (ours, theirs), args.repeats)
                one, two = map(statistics.median, both)
                kind = "forward and backward" if backward else "forward"
                print(f"| {network} | {kind} | {one:.4f} | {two:.4f} | {one / two:.2f} |")
    for worker in (ours, theirs):
        worker.close()


def make_batch(config: ModelConfig, num_pairs: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (num_pairs, *config.image_shape)
    return [rng.uniform(-1, 1, shape).astype(np.float32) for _ in "xy"]


def options(args: argparse.Namespace, compiled: bool) -> tuple[int, bool, str]:
    return args.threads, compiled, args.dtype


def check(terms, before, after, their_terms, theirs) -> None:
    """Verify that both give the same result for the same weights, images and noise.

    Updates agree to 1e-3, because activations within rounding of 0 take different slopes. Without
    such activations (`leaky_slope` 0.9999, no L1 terms), they agree to 5e-6.
    """
    print("| term, or update of a network | ours | PyTorch | relative difference |")
    print("|---|---|---|---|")
    for name, value in their_terms.items():
        difference = abs(terms[name] - value) / abs(value)
        print(f"| {name} | {terms[name]:.6f} | {value:.6f} | {difference:.0e} |")
    for name in NETWORKS:
        start, one, two = (
            np.concatenate([array.ravel() for array in weights[name]]).astype(float)
            for weights in (before, after, theirs)
        )
        one, two = one - start, two - start
        norms = np.linalg.norm(one), np.linalg.norm(two)
        difference = np.linalg.norm(one - two) / norms[1]
        print(f"| {name} | {norms[0]:.6f} | {norms[1]:.6f} | {difference:.0e} |")


def in_turns(call, workers, repeats: int) -> list[list[float]]:
    rounds = [[call(worker) for worker in workers] for _ in range(repeats)]
    return [list(values) for values in zip(*rounds, strict=True)]


def print_ratio(name: str, ours: list[float], theirs: list[float]) -> None:
    ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    print(f"{name}: {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")


def step_operations(config: ModelConfig) -> int:
    """Return the operations of a step per image of a batch.

    A backward pass costs one forward pass for the gradient of the weights and another for the
    gradient of the inputs, which images do not need. The discriminator runs three times; the third
    pass needs only the gradient of its inputs.
    """
    forward, first = {}, {}
    for network, layers in network_operations(config).items():
        forward[network], first[network] = sum(layers), layers[0]
    encoders = [3 * forward[name] - first[name] for name in NETWORKS[:2]]
    discriminator = 8 * forward[NETWORKS[3]] - 2 * first[NETWORKS[3]]
    return sum(encoders) + 3 * forward["decoder"] + discriminator


def network_operations(c: ModelConfig) -> dict[str, list[int]]:
    """Return the operations of each layer's forward pass for one image."""

    def conv(inputs: int, outputs: int, side: int, kernel: int = 4) -> int:
        return 2 * kernel**2 * inputs * outputs * side**2

    w, bands, dim = c.width, len(c.bands), c.exclusive_dim
    halving = [
        conv(a, b, side)
        for a, b, side in ((bands, w, 32), (w, 2 * w, 16), (2 * w, 4 * w, 8), (4 * w, 8 * w, 4))
    ]
    residual = [
        conv(n, 2 * n, side) + conv(2 * n, 2 * n, side) + conv(n, 2 * n, side, 1)
        for n, side in ((w, 16), (2 * w, 8), (4 * w, 4))
    ]
    return {
        "shared_encoder": [*halving, conv(8 * w, c.shared_channels, GRID_SIZE)],
        "exclusive_encoder": [halving[0], *residual, 4 * GRID_SIZE**2 * 8 * w * dim],
        "decoder": [
            conv(a, b, side)  # a transposed convolution: once for each pixel of its input
            for a, b, side in (
                *((c.shared_channels + dim, 4 * w, 4), (4 * w, 2 * w, 8)),
                *((2 * w, w, 16), (w, bands, 32)),
            )
        ],
        "discriminator": [*halving, conv(8 * w, 1, 1)],
    }


class Worker:
    """An implementation in its own process, controlled by messages."""

    def __init__(self, make, *args):
        context = multiprocessing.get_context("spawn")
        self.connection, end = context.Pipe()
        self.process = context.Process(target=serve, args=(end, make, *args), daemon=True)
        self.process.start()

    def __call__(self, name: str, *args):
        self.connection.send((name, args))
        return self.connection.recv()

    def close(self) -> None:
        self.connection.send(None)
        self.process.join()


def serve(connection, make, *args) -> None:
    implementation = make(*args)
    while (call := connection.recv()) is not None:
        name, arguments = call
        connection.send(getattr(implementation, name)(*arguments))


def make_ours(*args):
    return OurStep(*args)


def make_theirs(*args):
    from pytorch_step import PyTorchStep

    return PyTorchStep(*args)


class OurStep:
    """`DisentangledSITS` with the defaults of `compile`, as `fit` runs it."""

    def __init__(self, config: ModelConfig, batch, threads: int, jit: bool, dtype: str):
        import keras
        import tensorflow as tf

        from sits_keras.model import DisentangledSITS

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.tf, self.keras, self.config, self.jit = tf, keras, config, jit
        self.model_class = DisentangledSITS
        self.model = DisentangledSITS(config, dtype=dtype)
        self.model.compile(jit_compile=jit)
        self.images = tf.constant(np.concatenate(batch))
        self.batches = iter(tf.data.Dataset.from_tensors(tuple(batch)).repeat())
        self.train = self.model.make_train_function() or self.model.train_function

    def descend(self, rate: float):
        """Return noise and terms of one descent step, and the weights before and after."""
        model = self.model_class(self.config, dtype=self.model.dtype_policy)
        model.compile(*(self.keras.optimizers.SGD(rate) for _ in range(2)), jit_compile=self.jit)
        before = weights_of(model)
        # A seed generator with the model's initial state gives the same noise.
        draws = self.keras.random.SeedGenerator(model.seed)
        noise = self.keras.random.normal((len(self.images), self.config.exclusive_dim), seed=draws)
        terms = model.train_on_batch(*next(self.batches), return_dict=True)
        return np.asarray(noise), terms, before, weights_of(model)

    def seconds(self, steps: int) -> list[float]:
        return [clock(lambda: float(self.train(self.batches)["loss"])) for _ in range(steps)]

    def network_seconds(self, name: str, backward: bool, repeats: int) -> list[float]:
        """Return the duration of one network on the images of the step."""
        tf, c = self.tf, self.config
        network, inputs = getattr(self.model, name), [self.images]
        if name == "decoder":
            shape = (len(self.images), GRID_SIZE, GRID_SIZE, c.shared_channels)
            inputs = [
                tf.random.normal(shape),
                tf.random.normal((len(self.images), c.exclusive_dim)),
            ]

        @tf.function
        def run(*inputs):
            if not backward:
                return network(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
            sources = [v.value for v in network.trainable_variables]
            sources += inputs if len(inputs) > 1 else []
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(sources)
                outputs = network(list(inputs) if len(inputs) > 1 else inputs[0], training=True)
                total = sum(tf.reduce_sum(output) for output in tf.nest.flatten(outputs))
            return tape.gradient(total, sources)

        run(*inputs)
        return [clock(lambda: run(*inputs)) for _ in range(repeats)]

    def gemm(self, size: int, repeats: int) -> float:
        """Return the best rate of a square float32 matrix product in GFLOP/s."""
        a, b = (self.tf.random.normal((size, size)) for _ in "ab")
        return 2e-9 * size**3 / min(clock(lambda: (a @ b).numpy()) for _ in range(repeats))

    def memory(self, steps: int) -> float:
        """Return the MB that the process uses after more steps of `fit`."""
        data = self.tf.data.Dataset.from_tensors(next(self.batches)).repeat()
        self.model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)
        return int(re.search(r"VmRSS:\s*(\d+)", Path("/proc/self/status").read_text())[1]) / 1024

    def versions(self) -> str:
        return f"TensorFlow {self.tf.__version__}, Keras {self.keras.__version__}"


def weights_of(model) -> dict[str, list[np.ndarray]]:
    """Return the trainable weights of each network, in the order of its layers' names."""

    def block(variable) -> str:
        return variable.path.split("/")[0].removesuffix("_conv").removesuffix("_norm")

    networks = {name: getattr(model, name).trainable_variables for name in NETWORKS}
    return {
        name: [np.array(variable) for variable in sorted(variables, key=block)]
        for name, variables in networks.items()
    }


def clock(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure_encoder(args: argparse.Namespace) -> None:
    """Compare crops of one window and of four windows, the same number of pairs of windows."""
    sizes = (IMAGE_SIZE, 2 * IMAGE_SIZE)
    config = ModelConfig(width=args.width, padding="context", shared_norm="layer")
    workers = [
        Worker(make_encoder, config, args.batch, size, args.threads, args.dtype) for size in sizes
    ]
    print(f"{machine(args.threads)}, {workers[0]('versions')}")
    print(f"width {args.width}, {args.batch} pairs of windows, {args.dtype}", end="")
    print(f"; medians of {args.repeats} alternating runs\n")
    for worker in workers:
        worker("seconds", 3)
    times = in_turns(lambda w: w("seconds", 1)[0], workers, args.repeats)
    print("| crops | s | pairs of windows per second |\n|---|---|---|")
    for size, each in zip(sizes, times, strict=True):
        seconds = statistics.median(each)
        print(f"| {size} px | {seconds:.3f} | {args.batch / seconds:.0f} |")
    print_ratio("\none window / four windows a crop", *times)
    for worker in workers:
        worker.close()


def make_encoder(*args):
    return EncoderStep(*args)


class EncoderStep:
    """A step of `DisentangledSITS` that trains the shared encoder alone, as `fit` runs it."""

    def __init__(self, config: ModelConfig, num_windows: int, size: int, threads: int, dtype: str):
        import keras
        import tensorflow as tf

        from sits_keras.model import DisentangledSITS

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        self.tf, self.keras = tf, keras
        model = DisentangledSITS(config, dtype=dtype)
        model.compile(
            objective={
                **dict.fromkeys(("lambda_l1", "lambda_shared", "lambda_kl"), 0.0),
                "lambda_adversarial": 0.0,
                **dict.fromkeys(("lambda_info_nce", "lambda_global_info_nce"), 1.0),
            }
        )
        num_crops = num_windows // (size // IMAGE_SIZE) ** 2
        side = size + sum(model.context_margin)
        rng = np.random.default_rng(0)
        shape = (2, num_crops, side, side, len(config.bands))
        x, y = rng.uniform(-1, 1, shape).astype(np.float32)
        self.batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
        self.train = model.make_train_function() or model.train_function

    def seconds(self, steps: int) -> list[float]:
        return [clock(lambda: float(self.train(self.batches)["loss"])) for _ in range(steps)]

    def versions(self) -> str:
        return f"TensorFlow {self.tf.__version__}, Keras {self.keras.__version__}"


def measure_memory(config: ModelConfig, args: argparse.Namespace) -> None:
    ours = Worker(make_ours, config, make_batch(config, args.batch), *options(args, args.jit))
    print(f"{machine(args.threads)}, {ours('versions')}")
    print(f"width {args.width}, batches of {args.batch} pairs, {args.dtype}\n")
    print("| after steps of fit | resident, MB |\n|---|---|")
    done = 0
    for step in MEMORY_STEPS:
        print(f"| {step} | {ours('memory', step - done):.0f} |")
        done = step
    ours.close()


def machine(threads: int) -> str:
    return f"{platform.machine()}, {threads} threads, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
