"""The model: two encoders, a decoder and a discriminator that learn from pairs of dates.

`DisentangledSITS.update` is the training step of Algorithm 1; `generator_terms` and
`discriminator_terms` are what it differentiates.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from sits_keras import losses
from sits_keras.config import ModelConfig, ObjectiveConfig
from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.generation import Generated, Generation
from sits_keras.layers import default_dtype_policy
from sits_keras.networks import (
    build_decoder,
    build_discriminator,
    build_exclusive_encoder,
    build_shared_encoder,
)
from sits_keras.provenance import Provenance
from sits_keras.receptive_field import crop_context
from sits_keras.trainers import Trainer
from sits_keras.trainers.optimizers import join_optimizers

Tensor = Any


@keras.saving.register_keras_serializable(package="sits_keras")
class DisentangledSITS(Trainer, Generation, Provenance, keras.Model):
    """Learns a shared and an exclusive representation of satellite image time series.

    Trained with `fit` on batches of pairs `(x, y)`: two dates of the same places, each
    `(batch, 64, 64, bands)` float in [-1, 1] (see `sits_keras.data.pair_dataset`), or larger by
    the context margin that the encoders take, which the other networks do not see. Called on
    `(x, y)`, it returns `(x_hat, y_hat)`: each image generated from the shared representation of
    the other one and from its own exclusive representation (Figure 1).

    Args:
        config: the networks' shape, as a `ModelConfig` or its `to_dict()`; the paper's by default.
        seed: seed of the initial weights and of the draws from the exclusive posterior.

    Attributes:
        shared_encoder, exclusive_encoder, decoder, discriminator: the networks, each a functional
            `keras.Model` (see `sits_keras.networks`).
    """

    def __init__(
        self,
        config: ModelConfig | Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if config is None:
            config = ModelConfig()
        self.config = config if isinstance(config, ModelConfig) else ModelConfig.from_dict(config)
        self.seed = seed
        with default_dtype_policy(self.dtype_policy):
            self.shared_encoder = build_shared_encoder(self.config, seed)
            self.exclusive_encoder = build_exclusive_encoder(self.config, seed)
            self.decoder = build_decoder(self.config, seed)
            self.discriminator = build_discriminator(self.config, seed)
        if self.num_replicas() > 1:
            # So that a step is the same on any number of devices: the statistics of the batch are
            # those of all its parts.
            for layer in self._flatten_layers():
                if isinstance(layer, keras.layers.BatchNormalization):
                    layer.synchronized = True
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.objective = ObjectiveConfig()
        self._trackers = {
            name: keras.metrics.Mean(name=name)
            for name in (
                *("l1", "shared_l1", "kl", "adversarial", "info_nce"),
                *("discriminator", "d_real", "d_fake"),
            )
        }
        self.built = True  # the networks are

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | str | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | str | None = None,
        objective: ObjectiveConfig | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Sets the optimizers and the objective; without arguments, the paper's.

        Args:
            generator_optimizer: updates both encoders and the decoder; an optimizer, or the name
                of one with Keras' settings.
            discriminator_optimizer: updates the discriminator; not the same object.
            objective: the terms' weights and the form of the updates.
            kwargs: `run_eagerly`, `steps_per_execution` and `jit_compile` of
                `keras.Model.compile`. XLA is used where there is a GPU unless `jit_compile` says
                otherwise.

        Raises:
            ConfigError: both players would share an optimizer, an argument has no meaning here,
                or the dtype policy is `mixed_float16`.
        """
        unknown = sorted(set(kwargs) - {"run_eagerly", "steps_per_execution", "jit_compile"})
        if unknown:
            raise ArgumentError(
                f"compile() does not take {', '.join(unknown)}: the losses are the method's own "
                "(see objective), and each player has its optimizer (generator_optimizer, "
                "discriminator_optimizer)."
            )
        if self.dtype_policy.name == "mixed_float16":
            raise ConfigError(
                "mixed_float16 would need the losses of both players scaled apart. "
                "Use the dtype policy 'mixed_bfloat16' or 'float32'."
            )
        optimizer = join_optimizers(
            generator_optimizer, discriminator_optimizer, self.num_replicas()
        )
        if objective is None:
            objective = ObjectiveConfig()
        elif not isinstance(objective, ObjectiveConfig):
            objective = ObjectiveConfig.from_dict(objective)
        self.objective = objective
        jit_compile = kwargs.pop("jit_compile", "auto")
        super().compile(
            optimizer=optimizer,
            jit_compile=self.default_jit_compile() if jit_compile == "auto" else jit_compile,
            **kwargs,
        )
        of_discriminator, of_generator = optimizer.optimizers
        self._compile_arguments = {
            "generator_optimizer": keras.saving.serialize_keras_object(of_generator),
            "discriminator_optimizer": keras.saving.serialize_keras_object(of_discriminator),
            "objective": objective.to_dict(),
            "jit_compile": jit_compile,
            **kwargs,
        }
        self.optimizer.build(self.trainable_variables)

    @property
    def generator_variables(self) -> list[keras.Variable]:
        """Trainable variables of the player that minimises: both encoders and the decoder."""
        networks = (self.shared_encoder, self.exclusive_encoder, self.decoder)
        return [variable for network in networks for variable in network.trainable_variables]

    def generate(self, x: Tensor, y: Tensor, *, training: bool = False) -> Generated:
        """Both cross-domain translations of a batch of m pairs (Figure 1).

        Args:
            x: `(m, 64, 64, bands)` in [-1, 1]; under `padding="context"` also with surroundings,
                `context_margin` pixels before and after.
            y: same shape, another date of the same places.
            training: draw the exclusive representation from its posterior and normalise by the
                batch; otherwise use its mean and the moving statistics.
        """
        images = ops.concatenate([x, y], axis=0)
        shared = self.shared_encoder(images, training=training)
        mean, log_var = self.exclusive_encoder(images, training=training)
        exclusive = mean
        if training:
            exclusive = mean + ops.exp(0.5 * log_var) * self._noise(*ops.shape(mean))
        # Switched: x_hat takes the shared representation of y, y_hat that of x.
        switched = ops.concatenate(ops.split(shared, 2, axis=0)[::-1], axis=0)
        generated = self.decoder([switched, exclusive], training=training)
        return Generated(generated, shared, mean, log_var)

    def generator_terms(
        self, x: Tensor, y: Tensor, generated: Generated, *, training: bool
    ) -> dict[str, Tensor]:
        """The terms of eq. 5 that the encoders and the decoder minimise.

        Returns:
            Scalars `l1`, `shared_l1`, `kl` and `adversarial`, the mean over x and y of each,
            `info_nce`, and `loss`, eq. 5, in which the terms of x and y are added.
        """
        x, y = crop_context(x, self.config), crop_context(y, self.config)
        d_fake = self.discriminator(generated.images, training=training)
        l1 = losses.image_l1(ops.concatenate([x, y], axis=0), generated.images)
        shared_x, shared_y = ops.split(generated.shared, 2, axis=0)
        shared = losses.shared_l1(shared_x, shared_y)
        info_nce = losses.info_nce(shared_x, shared_y, self.objective.temperature)
        kl = losses.kl_to_standard_normal(generated.mean, generated.log_var)
        adversarial = losses.adversarial_generator(d_fake)
        loss = losses.weighted_sum(
            2 * adversarial, 2 * l1, shared, 2 * kl, info_nce, self.objective
        )
        terms = {"l1": l1, "shared_l1": shared, "kl": kl, "adversarial": adversarial}
        return {"loss": loss, **terms, "info_nce": info_nce}

    def discriminator_terms(
        self, x: Tensor, y: Tensor, images: Tensor, *, training: bool
    ) -> dict[str, Tensor]:
        """What the discriminator minimises, given generated images.

        Real and generated images pass in separate calls: in one batch, the statistics that batch
        normalisation shares would tell them apart.

        Returns:
            Scalars `discriminator`, the loss, and `d_real` and `d_fake`, the mean outputs.
        """
        x, y = crop_context(x, self.config), crop_context(y, self.config)
        d_real = self.discriminator(ops.concatenate([x, y], axis=0), training=training)
        d_fake = self.discriminator(images, training=training)
        loss = losses.adversarial_discriminator(d_real, d_fake, self.objective.adversarial)
        return {"discriminator": loss, "d_real": ops.mean(d_real), "d_fake": ops.mean(d_fake)}

    def update(self, x: Tensor, y: Tensor) -> None:
        """One step of Algorithm 1: updates every network once from a batch of pairs."""
        d_optimizer, g_optimizer = self.optimizer.optimizers
        d_variables, g_variables = self.discriminator.trainable_variables, self.generator_variables

        def generator_loss(*outputs: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
            terms = self.generator_terms(x, y, Generated(*outputs), training=True)
            return [terms["loss"]], terms

        def discriminator_loss() -> tuple[list[Tensor], dict[str, Tensor]]:
            images = ops.stop_gradient(generated[0])
            terms = self.discriminator_terms(x, y, images, training=True)
            return [terms["discriminator"]], terms

        # The generator's forward pass serves both players. Its gradient is taken in two halves,
        # from the loss to its outputs and from there to its variables, so that between them the
        # discriminator can be updated on those same outputs.
        generated, _, to_variables = self.vjp(
            lambda: (self.generate(x, y, training=True), None), g_variables
        )
        (d_loss,), d_terms, d_pullback = self.vjp(discriminator_loss, d_variables)
        # The optimizers add the gradients of the devices that share a batch.
        d_gradients = d_pullback([ops.ones_like(d_loss) / self.num_replicas()])
        if self.objective.update == "alternating":
            d_optimizer.apply(d_gradients, d_variables)
        (g_loss,), g_terms, to_outputs = self.vjp(generator_loss, inputs=generated)
        g_gradients = to_variables(to_outputs([ops.ones_like(g_loss) / self.num_replicas()]))
        if self.objective.update == "simultaneous":
            d_optimizer.apply(d_gradients, d_variables)
        g_optimizer.apply(g_gradients, g_variables)
        self.optimizer.iterations.assign_add(1)
        self._track({**g_terms, **d_terms}, ops.shape(x)[0])

    def evaluate_batch(self, x: Tensor, y: Tensor) -> None:
        """The same terms on a batch of pairs, without noise and with the moving statistics."""
        generated = self.generate(x, y, training=False)
        terms = self.generator_terms(x, y, generated, training=False)
        terms.update(self.discriminator_terms(x, y, generated.images, training=False))
        self._track(terms, ops.shape(x)[0])

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        if not isinstance(inputs, list | tuple) or len(inputs) != 2:
            raise ArgumentError(
                "Expected two inputs, (x, y); predict() takes both as its x: predict((x, y)). "
                f"Received: {keras.tree.map_structure(lambda i: tuple(i.shape), inputs)}."
            )
        x, y = inputs
        x_hat, y_hat = ops.split(self.generate(x, y, training=training).images, 2, axis=0)
        return x_hat, y_hat

    def save_own_variables(self, store: Any) -> None:
        # Keras leaves a seed generator's state out; without it, a run does not go on as it was.
        store["seed_state"] = self.seed_generator.state
        store["steps_before"] = np.array(self._steps_before)

    def load_own_variables(self, store: Any) -> None:
        # Former files name the state "draws" and may lack the steps. A store is no dictionary.
        seed_key = "seed_state" if "seed_state" in store.keys() else "draws"  # noqa: SIM118
        self.seed_generator.state.assign(store[seed_key])
        if "steps_before" in store.keys():  # noqa: SIM118
            self._steps_before = int(np.array(store["steps_before"]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "seed": self.seed}

    def get_compile_config(self) -> dict[str, Any]:
        return self._compile_arguments if self.compiled else {}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        arguments = dict(config)
        for name in ("generator_optimizer", "discriminator_optimizer"):
            arguments[name] = keras.saving.deserialize_keras_object(arguments[name])
        self.compile(**arguments)

    def _noise(self, num_images: Tensor, dim: int) -> Tensor:
        """`(num_images, dim)` normal: what one device would draw for this one's part of a batch."""
        num_pairs = num_images // 2
        noise = keras.random.normal(
            (2, self.num_replicas() * num_pairs, dim), seed=self.seed_generator
        )
        if self.num_replicas() > 1:
            first = self.replica() * num_pairs
            noise = noise[:, first : first + num_pairs]
        return ops.reshape(noise, (-1, dim))

    def _track(self, terms: Mapping[str, Tensor], batch_size: Tensor) -> None:
        self._loss_tracker.update_state(terms["loss"], sample_weight=batch_size)
        for name, tracker in self._trackers.items():
            tracker.update_state(terms[name], sample_weight=batch_size)
