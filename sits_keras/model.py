"""The model: two encoders, a decoder and a discriminator that learn from pairs of dates.

`DisentangledSITS.update` is the training step of Algorithm 1; `generator_terms` and
`discriminator_terms` are the objectives that it differentiates.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import keras
import numpy as np
import numpy.typing as npt
from keras import ops

from sits_keras import losses
from sits_keras.config import ModelConfig, ObjectiveConfig
from sits_keras.contrastive import EncoderTraining, check_no_weights, check_objective, jitter
from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.generation import Generated, Generation
from sits_keras.layers import default_dtype_policy
from sits_keras.networks import (
    build_decoder,
    build_discriminator,
    build_exclusive_encoder,
    build_shared_encoder,
)
from sits_keras.receptive_field import crop_context
from sits_keras.trainers import Trainer
from sits_keras.trainers.optimizers import join_optimizers

Tensor = Any
Terms = dict[str, Tensor]

TERM_NAMES = (
    "l1",
    "shared_l1",
    "kl",
    "adversarial",
    "info_nce",
    "discriminator",
    "d_real",
    "d_fake",
    "global_info_nce",
)
"""Terms of the objective that are reported beside `loss`; each objective has some of them."""


class Whitening(NamedTuple):
    """Linear map after which the pooled features of a shared encoder have no dominant direction.

    Attributes:
        offset: `(features,)` float32, subtracted first.
        matrix: `(features, features)` float32.
    """

    offset: npt.NDArray[np.float32]
    matrix: npt.NDArray[np.float32]


@keras.saving.register_keras_serializable(package="sits_keras")
class DisentangledSITS(Trainer, EncoderTraining, Generation, keras.Model):
    """Model of a shared and an exclusive representation of satellite image time series.

    Train it with `fit` on batches of pairs `(x, y)`: two dates of the same places, each
    `(batch, 64, 64, bands)` float in [-1, 1] (see `sits_keras.data.pair_dataset`). With
    `padding="context"`, images may also come with their context margin, which only the encoders
    use. Called on `(x, y)`, the model returns `(x_hat, y_hat)`: each image generated from the
    shared representation of the other date and its own exclusive representation (Figure 1).

    Args:
        config: Shape of the networks, as a `ModelConfig` or its `to_dict()`; the paper's by
            default.
        seed: Seed of the initial weights and of the samples from the exclusive posterior.
        **kwargs: `name` and `dtype` of `keras.Model`.

    Attributes:
        shared_encoder: Encoder of the location, a functional `keras.Model` (`networks`).
        exclusive_encoder: Encoder of the acquisition date.
        decoder: Generator of images from both representations.
        discriminator: Classifier of real and generated images.
        whitening: Whitening of the pooled features (`hub.pooling.fit_whitening`), saved with the
            model; None without one. `compile` forgets it unless the shared encoder is frozen.

    Examples:
        >>> import numpy as np
        >>> from sits_keras import DisentangledSITS, ModelConfig
        >>> model = DisentangledSITS(ModelConfig(width=2), seed=0)
        >>> model.compile()
        >>> x, y = np.zeros((2, 4, 64, 64, 4), "float32")
        >>> history = model.fit(x, y, batch_size=2, epochs=1, verbose=0)
        >>> tuple(model.shared_encoder(x).shape)
        (4, 4, 4, 64)
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
        self._synchronize_batch_norm()
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.objective = ObjectiveConfig()
        self.whitening: Whitening | None = None
        self._steps_before = 0  # updates by former optimizers
        # Model files contain the state of the metrics under the name of this attribute.
        self._trackers = {name: keras.metrics.Mean(name, dtype="float32") for name in TERM_NAMES}
        self.built = True  # the networks are

    def compile(
        self,
        generator_optimizer: keras.optimizers.Optimizer | str | None = None,
        discriminator_optimizer: keras.optimizers.Optimizer | str | None = None,
        objective: ObjectiveConfig | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Set the optimizers and the objective, by default those of the paper.

        Args:
            generator_optimizer: Optimizer of both encoders and the decoder; an instance, or the
                name of a Keras optimizer.
            discriminator_optimizer: Optimizer of the discriminator; another instance.
            objective: Weights of the terms and form of the updates.
            **kwargs: `run_eagerly`, `steps_per_execution` and `jit_compile` of
                `keras.Model.compile`. By default XLA is used if there is a GPU.

        Raises:
            ArgumentError: Both optimizers are the same object, or an argument has no meaning
                here.
            ConfigError: The dtype policy computes in float16, or the objective does not fit the
                model (`contrastive.check_objective`).
        """
        unknown = sorted(set(kwargs) - {"run_eagerly", "steps_per_execution", "jit_compile"})
        if unknown:
            raise ArgumentError(
                f"compile() does not take {', '.join(unknown)}. The losses are part of the method "
                "(see objective), and there are two optimizers (generator_optimizer, "
                "discriminator_optimizer)."
            )
        if self.dtype_policy.compute_dtype == "float16":
            raise ConfigError(
                f"The dtype policy {self.dtype_policy.name!r} is not supported: float16 gradients "
                "of the two objectives would need separate loss scaling. Use the dtype policy "
                "'mixed_bfloat16' or 'float32': DisentangledSITS(..., dtype='float32')."
            )
        if keras.config.floatx() == "float16":
            raise ConfigError(
                "keras.config.floatx() is 'float16', in which the metrics overflow. It is set in "
                "keras.json (in KERAS_HOME or ~/.keras) or by keras.config.set_floatx(). Set it to "
                "'float32'."
            )
        optimizer = join_optimizers(
            generator_optimizer, discriminator_optimizer, self.num_replicas()
        )
        if objective is None:
            objective = ObjectiveConfig()
        elif not isinstance(objective, ObjectiveConfig):
            objective = ObjectiveConfig.from_dict(objective)
        check_objective(self.config, objective)
        self.objective = objective
        if not objective.freeze_shared:
            self.whitening = None  # it was fitted to weights that training changes
        self.build_projector()
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
        """Trainable variables of the generator's optimizer.

        They are those of both encoders and the decoder. A training of the shared encoder alone
        has those of this encoder and the projector instead.
        """
        if self.objective.encoder_only:
            networks = [self.shared_encoder]
            if self.objective.lambda_global_info_nce and self.projector is not None:
                networks.append(self.projector)
        else:
            networks = [self.exclusive_encoder, self.decoder]
            if not self.objective.freeze_shared:
                networks.insert(0, self.shared_encoder)
        return [variable for network in networks for variable in network.trainable_variables]

    def generate(self, x: Tensor, y: Tensor, *, training: bool = False) -> Generated:
        """Generate each date of m pairs from the location of the other date (Figure 1).

        Args:
            x: First dates, `(m, 64, 64, bands)` in [-1, 1]. With `padding="context"`, images may
                also come with their context margin.
            y: Second dates of the same places, same shape and range.
            training: Sample the exclusive representation from its posterior and normalise by
                batch statistics. Otherwise use its mean and the moving statistics.

        Returns:
            Generated images and representations.
        """
        images = ops.concatenate([x, y], axis=0)
        learns = training and not self.objective.freeze_shared
        location = self.encode_location(images, training=learns)
        mean, log_var = self.exclusive_encoder(images, training=training)
        exclusive = mean
        if training:
            exclusive = mean + ops.exp(0.5 * log_var) * self._noise(*ops.shape(mean))
        # Swapped: x_hat takes the shared representation of y, y_hat that of x.
        swapped = [ops.concatenate(ops.split(one, 2, axis=0)[::-1], axis=0) for one in location]
        generated = self.decoder([*swapped, exclusive], training=training)
        return Generated(generated, location[-1], mean, log_var)

    def generator_terms(
        self, x: Tensor, y: Tensor, generated: Generated, *, training: bool
    ) -> Terms:
        """Return the terms of eq. 5 that the encoders and the decoder minimise.

        Args:
            x: First dates of a batch of pairs.
            y: Second dates.
            generated: Result of `generate` for this batch.
            training: Normalise by batch statistics.

        Returns:
            Scalars `l1`, `shared_l1`, `kl` and `adversarial`, each the mean over x and y;
            `info_nce`; and `loss`, eq. 5, which adds the terms of x and y.
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

    def discriminator_terms(self, x: Tensor, y: Tensor, images: Tensor, *, training: bool) -> Terms:
        """Return the terms that the discriminator minimises.

        Real and generated images pass in separate calls. In one batch, the shared statistics of
        batch normalisation would reveal which images are generated.

        Args:
            x: First dates of a batch of pairs.
            y: Second dates.
            images: Generated images, `(2m, 64, 64, bands)`.
            training: Normalise by batch statistics.

        Returns:
            Scalars `discriminator`, the loss, and `d_real` and `d_fake`, the mean outputs.
        """
        x, y = crop_context(x, self.config), crop_context(y, self.config)
        d_real = self.discriminator(ops.concatenate([x, y], axis=0), training=training)
        d_fake = self.discriminator(images, training=training)
        loss = losses.adversarial_discriminator(d_real, d_fake, self.objective.adversarial)
        return {"discriminator": loss, "d_real": ops.mean(d_real), "d_fake": ops.mean(d_fake)}

    def update(self, x: Tensor, y: Tensor, weights: Tensor = None) -> None:
        """Update every network once from a batch of pairs (Algorithm 1).

        One forward pass of the encoders and the decoder serves both objectives. Its gradient is
        taken in two halves, from the loss to the generated tensors and from there to the
        variables. In between, the discriminator can be updated on the same images.

        Args:
            x: First dates, `(m, 64, 64, bands)` in [-1, 1], or with their context margin. If only
                the shared encoder is trained, also crops of several windows (`encoder_terms`).
            y: Second dates of the same places, same shape and range.
            weights: Weights of cells, if only the shared encoder is trained (`encoder_terms`).
        """
        if self.objective.encoder_only:
            self.update_encoder(x, y, weights)
            return
        check_no_weights(weights)
        d_optimizer, g_optimizer = self.optimizer.optimizers
        d_variables, g_variables = self.discriminator.trainable_variables, self.generator_variables
        alternating = self.objective.update == "alternating"

        if self.objective.freeze_shared:
            images = jitter(ops.concatenate([x, y], axis=0), self._normal, self.objective)
            x, y = ops.split(images, 2, axis=0)

        # Encode both dates and generate each of them from the location of the other.
        tensors, _, generated_vjp = self.vjp(
            lambda: (self.generate(x, y, training=True), None), g_variables
        )
        generated = Generated(*tensors)

        # Update the discriminator on real and on generated images.
        fake = ops.stop_gradient(generated.images)
        d_terms, d_gradients = self._gradients(
            lambda: self.discriminator_terms(x, y, fake, training=True),
            "discriminator",
            d_variables,
        )
        if alternating:
            d_optimizer.apply(d_gradients, d_variables)

        # Update both encoders and the decoder against the discriminator.
        g_terms, to_generated = self._gradients(
            lambda *tensors: self.generator_terms(x, y, Generated(*tensors), training=True),
            "loss",
            inputs=generated,
        )
        g_gradients = generated_vjp(to_generated)
        if not alternating:  # all gradients at the same parameters
            d_optimizer.apply(d_gradients, d_variables)
        g_optimizer.apply(g_gradients, g_variables)

        self.optimizer.iterations.assign_add(1)
        self._track({**g_terms, **d_terms}, ops.shape(x)[0])

    def _gradients(
        self,
        function: Callable[..., Terms],
        loss: str,
        variables: Sequence[keras.Variable] = (),
        inputs: Sequence[Tensor] = (),
    ) -> tuple[Terms, list[Tensor]]:
        """Return the terms of `function(*inputs)`, and the gradients of the term named `loss`."""

        def loss_and_terms(*inputs: Tensor) -> tuple[list[Tensor], Terms]:
            terms = function(*inputs)
            return [terms[loss]], terms

        (value,), terms, pullback = self.vjp(loss_and_terms, variables, inputs)
        # Optimizers add the gradients of the devices that share a batch.
        return terms, pullback([ops.ones_like(value) / self.num_replicas()])

    def evaluate_batch(self, x: Tensor, y: Tensor, weights: Tensor = None) -> None:
        """Track the same terms on a batch of pairs, without noise and with moving statistics.

        Args:
            x: First dates, as in `update`.
            y: Second dates.
            weights: Weights of cells, as in `update`.
        """
        if self.objective.encoder_only:
            terms = self.encoder_terms(x, y, weights, training=False)
            self._track(terms, ops.shape(x)[0])
            return
        check_no_weights(weights)
        generated = self.generate(x, y, training=False)
        terms = self.generator_terms(x, y, generated, training=False)
        terms.update(self.discriminator_terms(x, y, generated.images, training=False))
        self._track(terms, ops.shape(x)[0])

    def copy_networks(self, other: "DisentangledSITS") -> None:
        """Copy the weights of the four networks of another model.

        Args:
            other: Model of the same configuration. `copy_projector` copies its projector.
        """
        for name in ("shared_encoder", "exclusive_encoder", "decoder", "discriminator"):
            getattr(self, name).set_weights(getattr(other, name).get_weights())

    def copy_projector(self, other: "DisentangledSITS") -> None:
        """Copy the weights of another model's projector, if both have one of the same shape.

        Args:
            other: Compiled model of the same configuration.
        """
        if self.projector is None or other.projector is None:
            return
        if self.projector.input_shape == other.projector.input_shape:
            self.projector.set_weights(other.projector.get_weights())

    def call(self, inputs: tuple[Tensor, Tensor], training: bool = False) -> tuple[Tensor, Tensor]:
        """Return the translations `(x_hat, y_hat)` of a pair of batches."""
        if not isinstance(inputs, list | tuple) or len(inputs) != 2:
            raise ArgumentError(
                "The model takes a pair of images. Expected two inputs, (x, y); predict() takes "
                "both as its x: predict((x, y)). "
                f"Received: {keras.tree.map_structure(lambda i: tuple(i.shape), inputs)}."
            )
        x, y = inputs
        x_hat, y_hat = ops.split(self.generate(x, y, training=training).images, 2, axis=0)
        return x_hat, y_hat

    @property
    def steps(self) -> int:
        """Updates that the weights have received, including those before the current compile."""
        return self._steps_before + (int(self.optimizer.iterations) if self.compiled else 0)

    def set_history(self, steps: int, objective: Mapping[str, Any]) -> None:
        """Record how the weights were trained before, for a model that is not compiled yet.

        Args:
            steps: Updates that the weights have received.
            objective: The objective of these updates, as `ObjectiveConfig.to_dict()`.
        """
        self._steps_before = steps
        self.objective = ObjectiveConfig.from_dict(objective)

    @classmethod
    def from_preset(cls, preset: Path | str) -> Self:
        """Load a pretrained model.

        Args:
            preset: Name of a preset (`sits-keras presets` lists them), path of its folder or zip
                archive, or URL of such an archive.

        Returns:
            The model, not compiled.

        Raises:
            MissingError: There is no such preset.
            DataError: A file is missing or does not match its checksum.
            ConfigError: The URL is refused.

        Examples:
            >>> from sits_keras import DisentangledSITS
            >>> model = DisentangledSITS.from_preset("sits_rgbn_small")
            >>> model.config.bands
            ('B02', 'B03', 'B04', 'B08')
        """
        model: Self = _presets().from_preset(preset)
        return model

    def save_to_preset(self, path: Path | str, **options: Any) -> Path:
        """Write the model as a preset, which `from_preset` loads.

        Args:
            path: Folder of the preset; its name is the name of the preset.
            **options: `license_id`, `summary`, `training` and `overwrite` of
                `sits_keras.presets.loading.save_preset`.

        Returns:
            The folder.

        Raises:
            ExistsError: The folder exists, and `overwrite` is not set or it is not a preset.
            OutputError: The folder cannot be written.
        """
        folder: Path = _presets().save_preset(self, path, **options)
        return folder

    def save_own_variables(self, store: Any) -> None:
        """Save the state of the seed generator, earlier steps, and the whitening."""
        # Keras does not save the state of a seed generator, which an exact resume needs.
        store["seed_state"] = self.seed_generator.state
        store["steps_before"] = np.array(self._steps_before)
        if self.whitening is not None:
            store["whitening_offset"], store["whitening_matrix"] = self.whitening

    def load_own_variables(self, store: Any) -> None:
        """Load what `save_own_variables` saved."""
        # Former files name the state "draws" and may lack the steps. A store has no __contains__.
        names = set(store.keys())
        self.seed_generator.state.assign(store["seed_state" if "seed_state" in names else "draws"])
        if "steps_before" in names:
            self._steps_before = int(np.array(store["steps_before"]))
        if "whitening_matrix" in names:
            self.whitening = Whitening(
                np.array(store["whitening_offset"]), np.array(store["whitening_matrix"])
            )

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "config": self.config.to_dict(), "seed": self.seed}

    def get_compile_config(self) -> dict[str, Any]:
        """Return the arguments of `compile`."""
        return self._compile_arguments if self.compiled else {}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile the model as `get_compile_config` describes."""
        arguments = dict(config)
        for name in ("generator_optimizer", "discriminator_optimizer"):
            arguments[name] = keras.saving.deserialize_keras_object(arguments[name])
        self.compile(**arguments)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The loss and the terms of the objective."""
        if self.objective.encoder_only:
            unused = set(TERM_NAMES) - {"shared_l1", "info_nce", "global_info_nce"}
        else:
            unused = {"global_info_nce"}
        return [metric for metric in super().metrics if metric.name not in unused]

    def _synchronize_batch_norm(self) -> None:
        """Use the statistics of the whole batch, so that a step is the same on any devices."""
        if self.num_replicas() > 1:
            for network in self.layers:
                for layer in network.layers:
                    if isinstance(layer, keras.layers.BatchNormalization):
                        layer.synchronized = True

    def _noise(self, num_images: Tensor, dim: int) -> Tensor:
        """Return normal noise, `(num_images, dim)`: this device's part of the noise of a batch."""
        num_pairs = num_images // 2
        noise = keras.random.normal(
            (2, self.num_replicas() * num_pairs, dim), dtype="float32", seed=self.seed_generator
        )
        if self.num_replicas() > 1:
            first = self.replica() * num_pairs
            noise = noise[:, first : first + num_pairs]
        return ops.reshape(noise, (-1, dim))

    def _track(self, terms: Mapping[str, Tensor], batch_size: Tensor) -> None:
        for metric in self.metrics:  # Keras' "loss" and those of TERM_NAMES
            metric.update_state(terms[metric.name], sample_weight=batch_size)


def _presets() -> Any:
    # Presets contain hub modules, which are exported from this class: the only import within a
    # function that goes against the order of the folders (tests/test_imports.py).
    from sits_keras.presets import loading

    return loading
