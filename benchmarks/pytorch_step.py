"""The same networks, losses and training step in plain PyTorch, for `train_step.py`.

Written in PyTorch's usual style: modules, autograd, channels_last, fused Adam. Layers have the
names of those in `sits_keras.networks`, so that weights can be copied.
"""

import itertools
import time
import warnings

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from sits_keras.config import GRID_SIZE, ModelConfig, ObjectiveConfig, OptimizerConfig


class Convolved(nn.Sequential):
    """Convolution, batch normalisation and, with a slope, leaky ReLU."""

    def __init__(self, conv: nn.Module, slope: float | None):
        norm = nn.BatchNorm2d(conv.out_channels, eps=1e-3, momentum=0.01)
        super().__init__(conv, norm, *([] if slope is None else [nn.LeakyReLU(slope, True)]))


def conv(inputs: int, outputs: int, stride: int, slope: float | None, size: int = 4) -> Convolved:
    padding = 1 if stride == 2 else "same"  # 1 before and 2 after a kernel of 4
    return Convolved(nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), slope)


class Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, slope: float):
        super().__init__()
        self.a = conv(inputs, outputs, 2, slope)
        self.b = conv(outputs, outputs, 1, None)
        self.shortcut = conv(inputs, outputs, 1, None, size=1)
        self.slope = slope

    def forward(self, x):
        x = self.b(self.a(x)) + self.shortcut(functional.avg_pool2d(x, 2))
        return functional.leaky_relu(x, self.slope, inplace=True)


def halve_four_times(c: ModelConfig) -> list[nn.Module]:
    sizes = [len(c.bands), *(factor * c.width for factor in (1, 2, 4, 8))]
    return [conv(a, b, 2, c.leaky_slope) for a, b in itertools.pairwise(sizes)]


class Exclusive(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.blocks = nn.Sequential(
            conv(len(c.bands), c.width, 2, c.leaky_slope),
            *(Residual(f * c.width, 2 * f * c.width, c.leaky_slope) for f in (1, 2, 4)),
        )
        self.log_var = nn.Linear(GRID_SIZE**2 * 8 * c.width, c.exclusive_dim)
        self.mean = nn.Linear(GRID_SIZE**2 * 8 * c.width, c.exclusive_dim)

    def forward(self, x):
        x = self.blocks(x).permute(0, 2, 3, 1).flatten(1)
        return self.mean(x), self.log_var(x)


class Decoder(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        sizes = [c.shared_channels + c.exclusive_dim, *(f * c.width for f in (4, 2, 1))]
        self.blocks = nn.Sequential(
            *(
                Convolved(nn.ConvTranspose2d(a, b, 4, 2, 1, bias=False), c.leaky_slope)
                for a, b in itertools.pairwise(sizes)
            ),
            nn.ConvTranspose2d(c.width, len(c.bands), 4, 2, 1),
        )

    def forward(self, shared, exclusive):
        repeated = exclusive[:, :, None, None].expand(-1, -1, GRID_SIZE, GRID_SIZE)
        x = torch.cat([shared, repeated], 1).contiguous(memory_format=torch.channels_last)
        return torch.tanh(self.blocks(x))


class Networks(nn.Module):
    def __init__(self, c: ModelConfig):
        super().__init__()
        self.shared_encoder = nn.Sequential(
            *halve_four_times(c), conv(8 * c.width, c.shared_channels, 1, c.leaky_slope)
        )
        self.exclusive_encoder = Exclusive(c)
        self.decoder = Decoder(c)
        self.discriminator = nn.Sequential(
            *halve_four_times(c), nn.Conv2d(8 * c.width, 1, GRID_SIZE), nn.Flatten(), nn.Sigmoid()
        )


class PyTorchStep:
    """A training step with the default objective, equivalent to `DisentangledSITS.update`."""

    def __init__(self, config: ModelConfig, batch, threads: int, compiled: bool, dtype: str):
        torch.set_num_threads(threads)
        torch.manual_seed(0)
        warnings.filterwarnings("ignore", "Using padding='same' with even kernel")
        self.config = config
        self.objective = ObjectiveConfig()
        self.networks = Networks(config).to(memory_format=torch.channels_last)
        self.autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "mixed_bfloat16")
        images = np.concatenate(batch).transpose(0, 3, 1, 2)
        self.images = torch.from_numpy(images).contiguous(memory_format=torch.channels_last)
        n = self.networks
        self.d_parameters = list(n.discriminator.parameters())
        generator = (n.shared_encoder, n.exclusive_encoder, n.decoder)
        self.g_parameters = [p for network in generator for p in network.parameters()]
        rates = OptimizerConfig()
        self.d_optimizer, self.g_optimizer = (
            torch.optim.Adam(p, rates.learning_rate, (rates.beta_1, 0.999), 1e-7, fused=True)
            for p in (self.d_parameters, self.g_parameters)
        )
        self.step = torch.compile(self.update) if compiled else self.update

    def update(self, noise=None):
        n, o = self.networks, self.objective
        with self.autocast:
            shared = n.shared_encoder(self.images)
            mean, log_var = (t.float() for t in n.exclusive_encoder(self.images))
            noise = torch.randn_like(mean) if noise is None else noise
            x, y = shared.chunk(2)
            fake = n.decoder(torch.cat([y, x]), mean + torch.exp(0.5 * log_var) * noise).float()
            for parameter in self.d_parameters:
                parameter.requires_grad_(True)
            d_real = n.discriminator(self.images).float()
            d_fake = n.discriminator(fake.detach()).float()
        d_loss = (1 - d_real).square().mean() + d_fake.square().mean()
        self.d_optimizer.zero_grad()
        d_loss.backward()
        self.d_optimizer.step()
        for parameter in self.d_parameters:  # no gradient for them in the generator's half
            parameter.requires_grad_(False)
        with self.autocast:
            adversarial = (1 - n.discriminator(fake).float()).square().mean()
        l1 = (self.images - fake).abs().mean()
        shared_l1 = (x.float() - y.float()).abs().mean()
        kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1).mean()
        loss = 2 * (adversarial + o.lambda_l1 * l1 + o.lambda_kl * kl) + o.lambda_shared * shared_l1
        self.g_optimizer.zero_grad()
        loss.backward()
        self.g_optimizer.step()
        terms = {"loss": loss, "l1": l1, "shared_l1": shared_l1, "kl": kl}
        terms |= {"adversarial": adversarial, "discriminator": d_loss}
        return {name: value.detach() for name, value in terms.items()}

    def descend(self, weights: dict[str, list[np.ndarray]], noise: np.ndarray, rate: float):
        """Return the terms of one descent step from Keras' weights, and the new weights."""
        adams, networks = (self.d_optimizer, self.g_optimizer), self.networks
        parameters = {name: list(getattr(networks, name).parameters()) for name in weights}
        with torch.no_grad():
            for name, arrays in weights.items():
                for parameter, array in zip(parameters[name], arrays, strict=True):
                    # (height, width, in, out), or (in, out) of a dense layer, transposed
                    turned = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
                    parameter.copy_(torch.from_numpy(np.ascontiguousarray(turned)))
        self.d_optimizer = torch.optim.SGD(self.d_parameters, rate)
        self.g_optimizer = torch.optim.SGD(self.g_parameters, rate)
        terms = {name: float(value) for name, value in self.update(torch.tensor(noise)).items()}
        self.d_optimizer, self.g_optimizer = adams
        after = {
            name: [
                a.transpose(2, 3, 1, 0) if a.ndim == 4 else a.T
                for a in (parameter.detach().numpy() for parameter in values)
            ]
            for name, values in parameters.items()
        }
        return terms, after

    def seconds(self, steps: int) -> list[float]:
        return [clock(self.step) for _ in range(steps)]

    def network_seconds(self, name: str, backward: bool, repeats: int) -> list[float]:
        """Return the duration of one network on the images of the step."""
        network, c = getattr(self.networks, name), self.config
        inputs = [self.images]
        if name == "decoder":
            shape = (len(self.images), c.shared_channels, GRID_SIZE, GRID_SIZE)
            shared = torch.randn(shape).contiguous(memory_format=torch.channels_last)
            inputs = [shared, torch.randn(len(self.images), c.exclusive_dim)]
            for tensor in inputs:
                tensor.requires_grad_(backward)
        for parameter in network.parameters():
            parameter.requires_grad_(True)

        def run():
            network.zero_grad()
            with torch.set_grad_enabled(backward), self.autocast:
                outputs = network(*inputs)
            if backward:
                outputs = outputs if isinstance(outputs, tuple) else (outputs,)
                sum(output.float().sum() for output in outputs).backward()

        return [clock(run) for _ in range(repeats)]

    def gemm(self, size: int, repeats: int) -> float:
        """Return the best rate of a square float32 matrix product in GFLOP/s."""
        a, b = torch.randn(size, size), torch.randn(size, size)
        return 2e-9 * size**3 / min(clock(lambda: a @ b) for _ in range(repeats))

    def versions(self) -> str:
        return f"PyTorch {torch.__version__}"


def clock(work) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
