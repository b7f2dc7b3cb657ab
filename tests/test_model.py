import collections
import dataclasses
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from sits_keras.config import ModelConfig, ObjectiveConfig, OptimizerConfig
from sits_keras.data.radiometry import to_network
from sits_keras.data.rasters.read import read_stored
from sits_keras.errors import ArgumentError, ConfigError
from sits_keras.generation import Generated
from sits_keras.model import DisentangledSITS
from sits_keras.trainers.optimizers import default_optimizer
from sits_keras.training import train

CONFIG = ModelConfig(width=2, shared_channels=3, exclusive_dim=5)
TERMS = {
    *("l1", "shared_l1", "kl", "adversarial", "info_nce"),
    *("discriminator", "d_real", "d_fake"),
}

each_update = pytest.mark.parametrize("update", ["alternating", "simultaneous"])


def make_images(seed: int, num: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (num, 64, 64, 4)).astype(np.float32)


X, Y = make_images(0), make_images(1)


def make_model(
    generator_rate: float = 0.05, discriminator_rate: float = 0.05, **kwargs
) -> DisentangledSITS:
    """A small model that is updated by plain gradient descent, eagerly."""
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile(
        keras.optimizers.SGD(generator_rate),
        keras.optimizers.SGD(discriminator_rate),
        run_eagerly=True,
        **kwargs,
    )
    return model


@pytest.fixture
def model():
    return make_model()


@pytest.fixture(scope="module")
def trained():
    """A model after some steps, so that its moving statistics are not the initial ones."""
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile(default_optimizer(OptimizerConfig(1e-3)), run_eagerly=True)
    for _ in range(2):
        model.update(X, Y)
    return model


def values_of(variables) -> list[np.ndarray]:
    return [np.asarray(variable) for variable in variables]


def assert_all_equal(some, others):
    for a, b in zip(some, others, strict=True):
        np.testing.assert_array_equal(a, b)


def spy_on(monkeypatch, network: keras.Model) -> list:
    """Return a list to which the inputs of each later call of `network` are added."""
    calls, call = [], network.call

    def spy(inputs, *args, **kwargs):
        calls.append(inputs)
        return call(inputs, *args, **kwargs)

    monkeypatch.setattr(network, "call", spy)
    return calls


class TestGenerate:
    def test_generate_x_hat_has_location_of_y_and_date_of_x(self, trained, monkeypatch):
        calls = spy_on(monkeypatch, trained.decoder)
        trained.generate(X, Y)
        ((shared, exclusive),) = calls
        np.testing.assert_allclose(shared[:3], trained.shared_encoder(Y), atol=1e-5)
        np.testing.assert_allclose(shared[3:], trained.shared_encoder(X), atol=1e-5)
        np.testing.assert_allclose(exclusive[:3], trained.exclusive_encoder(X)[0], atol=1e-5)
        np.testing.assert_allclose(exclusive[3:], trained.exclusive_encoder(Y)[0], atol=1e-5)

    def test_generate_returns_representations_of_x_first(self, trained):
        generated = trained.generate(X, Y)
        mean, log_var = trained.exclusive_encoder(X)
        np.testing.assert_allclose(generated.shared[:3], trained.shared_encoder(X), atol=1e-5)
        np.testing.assert_allclose(generated.mean[:3], mean, atol=1e-5)
        np.testing.assert_allclose(generated.log_var[:3], log_var, atol=1e-5)

    def test_generate_in_training_samples_from_posterior(self, model, monkeypatch):
        def stub(network, outputs):
            monkeypatch.setattr(network, "call", lambda *args, **kwargs: outputs)

        stub(model.shared_encoder, tf.zeros((400, 4, 4, 3)))
        stub(model.exclusive_encoder, (tf.fill((400, 5), 2.0), tf.fill((400, 5), 2.1972246)))
        calls = spy_on(monkeypatch, model.decoder)
        images = np.zeros((200, 64, 64, 4), np.float32)
        for training in (True, True, False):
            model.generate(images, images, training=training)
        first, second, mean = (np.asarray(exclusive) for _, exclusive in calls)
        assert first.mean() == pytest.approx(2, abs=0.25)
        assert first.std() == pytest.approx(3, rel=0.05)  # of which 2.1972246 is the log variance
        assert (first != second).all()
        assert (mean == 2).all()

    def test_generate_samples_depend_on_model_seed_only(self):
        images = []
        for seed, global_seed in ((0, 1), (0, 2), (1, 1)):
            keras.utils.set_random_seed(global_seed)
            model = DisentangledSITS(CONFIG, seed=seed)
            model.set_weights([np.full_like(w, 0.01) for w in model.get_weights()])
            images.append(np.asarray(model.generate(X, Y, training=True).images))
        np.testing.assert_array_equal(images[0], images[1])
        assert np.abs(images[0] - images[2]).max() > 0

    def test_call_returns_both_translations(self, trained):
        x_hat, y_hat = trained((X, Y))
        np.testing.assert_allclose(x_hat, trained.translate(Y, X), atol=1e-5)
        np.testing.assert_allclose(y_hat, trained.translate(X, Y), atol=1e-5)
        assert np.abs(np.asarray(x_hat) - np.asarray(y_hat)).max() > 1e-3

    @pytest.mark.parametrize(
        ("inputs", "received"),
        [(X, r"\(3, 64, 64, 4\)"), ((X, Y, X), r"\(\(3, 64, 64, 4\), .*\)")],
        ids=["one", "three"],
    )
    def test_call_with_other_than_two_inputs_raises(self, model, inputs, received):
        with pytest.raises(ArgumentError, match=rf"two inputs, \(x, y\).*Received: {received}\."):
            model.call(inputs)


class TestTerms:
    """The terms with networks of known outputs."""

    def test_generator_terms_match_hand_computed_values(self, model, monkeypatch):
        d_fake = tf.constant([[0.0], [0.4]])  # (1 + 0.36) / 2 = 0.68
        monkeypatch.setattr(model.discriminator, "call", lambda *args, **kwargs: d_fake)
        generated = Generated(
            images=tf.zeros((2, 64, 64, 4)),
            shared=tf.reshape([1.0] * 48 + [-1.0] * 48, (2, 4, 4, 3)),
            mean=tf.constant([[1.0] * 5, [0.0] * 5]),  # 2.5 nats and none
            log_var=tf.zeros((2, 5)),
        )
        x, y = tf.fill((1, 64, 64, 4), 0.1), tf.fill((1, 64, 64, 4), -0.3)
        terms = model.generator_terms(x, y, generated, training=False)
        assert {name: float(value) for name, value in terms.items()} == pytest.approx(
            {
                "l1": 0.2,
                "shared_l1": 2.0,
                "kl": 1.25,
                "adversarial": 0.68,
                "info_nce": np.log(16),  # all cells are alike
                # of x and y: 1 + 0.36 + 10 * (0.1 + 0.3) + 0.5 * 2 + 0.01 * (2.5 + 0)
                "loss": 6.385,
            }
        )

    @pytest.mark.parametrize(("form", "loss"), [("lsgan", 0.23), ("paper", -1.03)])
    def test_discriminator_terms_match_hand_computed_values(self, monkeypatch, form, loss):
        model = make_model(objective={"adversarial": form})
        # Its output is the value of a gray image.
        monkeypatch.setattr(
            model.discriminator,
            "call",
            lambda images, training=None, mask=None: tf.reduce_mean(images, (1, 2))[:, :1],
        )

        def gray(*values):
            return np.ones((1, 64, 64, 4), np.float32) * np.reshape(values, (-1, 1, 1, 1))

        terms = model.discriminator_terms(gray(0.9), gray(0.5), gray(0.2, 0.4), training=False)
        assert {name: float(value) for name, value in terms.items()} == pytest.approx(
            {"discriminator": loss, "d_real": 0.7, "d_fake": 0.3}
        )


def reference_update(model: DisentangledSITS, rate: float, update: str, form: str) -> None:
    """Algorithm 1, written out with plain tapes and gradient descent."""
    images, m = tf.concat([X, Y], axis=0), len(X)
    noise = keras.random.normal((2 * m, 5), seed=model.seed_generator)
    discriminator = [v.value for v in model.discriminator.trainable_variables]
    generator = [v.value for v in model.generator_variables]

    def generate():
        shared = model.shared_encoder(images, training=True)
        mean, log_var = model.exclusive_encoder(images, training=True)
        places = tf.concat([shared[m:], shared[:m]], axis=0)
        dates = mean + tf.sqrt(tf.exp(log_var)) * noise
        return model.decoder([places, dates], training=True), shared, mean, log_var

    def discriminator_gradients():
        fake_images = generate()[0]
        with tf.GradientTape() as tape:
            real = model.discriminator(images, training=True)
            fake = model.discriminator(fake_images, training=True)
            if form == "paper":
                loss = -tf.reduce_mean(real**2 + (1 - fake) ** 2)
            else:
                loss = tf.reduce_mean((1 - real) ** 2 + fake**2)
        return tape.gradient(loss, discriminator)

    def generator_gradients():
        with tf.GradientTape() as tape:
            generated, shared, mean, log_var = generate()
            fake = model.discriminator(generated, training=True)
            kl = 0.5 * tf.reduce_sum(mean**2 + tf.exp(log_var) - 1 - log_var, axis=1)
            loss = 0.5 * tf.reduce_mean(tf.abs(shared[:m] - shared[m:]))
            for date in (slice(0, m), slice(m, None)):
                loss += tf.reduce_mean((1 - fake[date]) ** 2)
                loss += 10 * tf.reduce_mean(tf.abs(images[date] - generated[date]))
                loss += 0.01 * tf.reduce_mean(kl[date])
        return tape.gradient(loss, generator)

    def descend(variables, gradients):
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.assign_sub(rate * gradient)

    if update == "alternating":
        descend(discriminator, discriminator_gradients())
        descend(generator, generator_gradients())
    else:
        both = discriminator_gradients(), generator_gradients()
        descend(discriminator, both[0])
        descend(generator, both[1])


class TestUpdate:
    @each_update
    @pytest.mark.parametrize("form", ["lsgan", "paper"])
    def test_update_equals_algorithm_1_written_out(self, update, form):
        # A large step of D, so that the two orders differ.
        model, reference = (
            make_model(0.5, 0.5, objective={"update": update, "adversarial": form})
            for _ in range(2)
        )
        before = values_of(model.trainable_variables)
        model.update(X, Y)
        reference_update(reference, 0.5, update, form)
        for old, new, expected in zip(
            before, model.trainable_variables, reference.trainable_variables, strict=True
        ):
            assert (np.asarray(new) != old).any(), new.path
            np.testing.assert_allclose(new, expected, atol=1e-5, err_msg=new.path)

    def test_update_orders_differ_in_generator_only(self):
        models = [
            make_model(0.5, 0.5, objective={"update": u}) for u in ("alternating", "simultaneous")
        ]
        for model in models:
            model.update(X, Y)
        one, other = (values_of(model.generator_variables) for model in models)
        assert max(np.abs(a - b).max() for a, b in zip(one, other, strict=True)) > 1e-3
        one, other = (values_of(model.discriminator.trainable_variables) for model in models)
        assert_all_equal(one, other)

    @each_update
    def test_update_gives_every_variable_a_gradient(self, update, monkeypatch):
        model = make_model(objective={"update": update})
        received = {}
        for optimizer in model.optimizer.optimizers:
            monkeypatch.setattr(
                optimizer,
                "apply",
                lambda g, v: received.update({w.path: d for w, d in zip(v, g, strict=True)}),
            )
        model.update(X, Y)
        assert set(received) == {variable.path for variable in model.trainable_variables}
        without = [p for p, g in received.items() if g is None or not np.asarray(g).any()]
        assert not without

    def test_update_applies_each_optimizer_to_its_networks(self, model, monkeypatch):
        heads = []
        for optimizer in model.optimizer.optimizers:
            monkeypatch.setattr(
                optimizer, "apply", lambda g, v: heads.append({w.path.split("_")[0] for w in v})
            )
        model.update(X, Y)
        assert heads == [{"discriminator"}, {"shared", "exclusive", "decoder"}]

    @each_update
    def test_update_of_generator_keeps_discriminator(self, update):
        model = make_model(discriminator_rate=0.0, objective={"update": update})
        discriminator = values_of(model.discriminator.trainable_variables)
        generator = values_of(model.generator_variables)
        model.update(X, Y)
        assert_all_equal(discriminator, values_of(model.discriminator.trainable_variables))
        for old, new in zip(generator, model.generator_variables, strict=True):
            assert (np.asarray(new) != old).any(), new.path

    @each_update
    def test_update_of_discriminator_keeps_generator(self, update):
        model = make_model(generator_rate=0.0, objective={"update": update})
        discriminator = values_of(model.discriminator.trainable_variables)
        generator = values_of(model.generator_variables)
        model.update(X, Y)
        assert_all_equal(generator, values_of(model.generator_variables))
        for old, new in zip(discriminator, model.discriminator.trainable_variables, strict=True):
            assert (np.asarray(new) != old).any(), new.path

    @each_update
    def test_update_passes_real_and_generated_images_separately(self, update, monkeypatch):
        model = make_model(objective={"update": update})
        generated = []
        generate = model.generate

        def remember(*args, **kwargs):
            generated.append(generate(*args, **kwargs))
            return generated[-1]

        monkeypatch.setattr(model, "generate", remember)
        calls = spy_on(monkeypatch, model.discriminator)
        model.update(X, Y)
        # D on real and on generated images, and the generator's term on the same generated images.
        (images,) = (g.images for g in generated)
        real, fake, fake_again = calls
        np.testing.assert_array_equal(real, np.concatenate([X, Y]))
        np.testing.assert_array_equal(fake, images)
        np.testing.assert_array_equal(fake_again, images)

    @each_update
    def test_update_runs_no_network_more_often_than_necessary(self, update, monkeypatch):
        model = make_model(objective={"update": update})
        networks = (model.shared_encoder, model.exclusive_encoder, model.decoder)
        calls = [spy_on(monkeypatch, network) for network in (*networks, model.discriminator)]
        model.update(X, Y)
        # D on real images, on generated ones, and on those again as the generator's judge.
        assert [len(c) for c in calls] == [1, 1, 1, 3]

    @each_update
    def test_update_computes_no_unused_convolution(self, update):
        """Count the convolutions of the compiled step, which has no unused gradient."""
        model = make_model(objective={"update": update})
        graph = tf.function(lambda x, y: model.update(x, y)).get_concrete_function(X, Y).graph
        needed, found = set(), [op for op in graph.get_operations() if op.op_def.is_stateful]
        while found:
            op = found.pop()
            if op not in needed:
                needed.add(op)
                found += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
        counts = collections.Counter(op.type for op in needed)
        shared, exclusive, decoder, discriminator = 5, 10, 4, 5
        assert counts["Conv2DBackpropFilter"] == shared + exclusive + decoder + 2 * discriminator
        # Forward passes, but for transposed convolutions, which are the gradients of such.
        assert counts["Conv2D"] == shared + exclusive + 3 * discriminator + decoder
        # Images need no gradient, but for generated ones, of the third pass.
        images = (shared - 1) + (exclusive - 1) + 2 * (discriminator - 1) + discriminator
        assert counts["Conv2DBackpropInput"] == images + decoder

    def test_update_uses_batch_statistics_and_moves_moving_ones(self, model):
        norms = [
            v for v in model.non_trainable_variables if v.path.endswith(("_mean", "_variance"))
        ]
        before = values_of(norms)
        model.update(X, Y)
        assert len(norms) == 2 * (5 + 10 + 3 + 4)
        for old, new in zip(before, norms, strict=True):
            assert (np.asarray(new) != old).any(), new.path

    def test_update_counts_one_step_for_each_optimizer(self, model):
        for _ in range(2):
            model.update(X, Y)
        assert int(model.optimizer.iterations) == 2
        assert [int(o.iterations) for o in model.optimizer.optimizers] == [2, 2]

    def test_update_tracks_terms_before_generator_step(self, model):
        state = np.asarray(model.seed_generator.state)
        model.update(X, Y)
        tracked = model.get_metrics_result()
        fresh = make_model(generator_rate=0.0)
        np.testing.assert_array_equal(fresh.seed_generator.state, state)
        fresh.update(X, Y)
        assert set(tracked) == TERMS | {"loss"}
        for name, value in fresh.get_metrics_result().items():
            assert float(tracked[name]) == pytest.approx(float(value), rel=1e-5), name


class TestCompile:
    def test_compile_default_is_the_papers_adam_twice(self):
        model = DisentangledSITS(CONFIG)
        model.compile()
        d_optimizer, g_optimizer = model.optimizer.optimizers
        assert d_optimizer is not g_optimizer
        for optimizer in (d_optimizer, g_optimizer):
            assert type(optimizer) is keras.optimizers.Adam
            assert optimizer.beta_1 == 0.5
        assert model.objective == ObjectiveConfig()

    @pytest.mark.parametrize(
        ("step", "rate"),
        [(0, 2e-4), (49_999, 2e-4), (50_000, 1e-4), (99_999, 1e-4), (100_000, 5e-5)],
    )
    def test_compile_default_learning_rate_is_staircase(self, step, rate):
        optimizer = default_optimizer()
        optimizer.build([keras.Variable([0.0])])
        optimizer.iterations.assign(step)
        assert float(optimizer.learning_rate) == pytest.approx(rate)

    def test_default_optimizer_follows_config(self):
        config = OptimizerConfig(learning_rate=0.1, decay_steps=2, decay_rate=0.1, beta_1=0.7)
        optimizer = default_optimizer(config)
        optimizer.build([keras.Variable([0.0])])
        optimizer.iterations.assign(3)
        assert float(optimizer.learning_rate) == pytest.approx(0.01)
        assert optimizer.beta_1 == 0.7

    def test_compile_accepts_names_of_optimizers(self):
        model = DisentangledSITS(CONFIG)
        model.compile("sgd", "rmsprop")
        d_optimizer, g_optimizer = model.optimizer.optimizers
        assert type(g_optimizer) is keras.optimizers.SGD
        assert type(d_optimizer) is keras.optimizers.RMSprop

    def test_compile_with_other_than_optimizer_raises(self):
        with pytest.raises(ValueError, match=r"0\.001"):
            DisentangledSITS(CONFIG).compile("sgd", 0.001)

    def test_compile_with_shared_optimizer_raises(self):
        optimizer = keras.optimizers.Adam()
        with pytest.raises(ArgumentError, match=r"an optimizer each\. Received: the same"):
            DisentangledSITS(CONFIG).compile(optimizer, optimizer)

    @pytest.mark.parametrize("name", ["optimizer", "loss", "metrics", "loss_weights"])
    def test_compile_with_unsupported_argument_raises(self, name):
        with pytest.raises(ArgumentError, match=rf"does not take {name}\. .*generator_optimizer"):
            DisentangledSITS(CONFIG).compile(**{name: "mse"})

    def test_compile_with_mixed_float16_raises(self):
        model = DisentangledSITS(CONFIG, dtype="mixed_float16")
        with pytest.raises(ConfigError, match="Use the dtype policy 'mixed_bfloat16' or 'float32'"):
            model.compile()

    def test_compile_accepts_objective_as_mapping(self, model):
        model.compile(objective={"lambda_kl": 0.5})
        assert model.objective == ObjectiveConfig(lambda_kl=0.5)
        model.compile(objective=ObjectiveConfig(lambda_kl=0.25))
        assert model.objective == ObjectiveConfig(lambda_kl=0.25)

    @pytest.mark.parametrize("gpus", [[], ["/physical_device:GPU:0"]])
    def test_compile_default_uses_xla_on_gpu_only(self, model, monkeypatch, gpus):
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
        model.compile()
        assert model.jit_compile is bool(gpus)
        model.compile(jit_compile="auto")
        assert model.jit_compile is bool(gpus)
        model.compile(jit_compile=not gpus)
        assert model.jit_compile is not bool(gpus)

    def test_compile_again_resets_optimizers(self, model):
        model.update(X, Y)
        model.compile()
        assert int(model.optimizer.iterations) == 0


@pytest.fixture(scope="module")
def fitted():
    """A model and the history of its `fit`, in graph mode, with validation."""
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile("sgd", "sgd")
    history = model.fit(X, Y, batch_size=2, epochs=2, validation_data=(Y, X), verbose=0)
    return model, history.history


class TestFit:
    def test_fit_history_has_every_term(self, fitted):
        _, history = fitted
        names = TERMS | {"loss"}
        assert set(history) == names | {f"val_{name}" for name in names}
        assert all(len(values) == 2 and np.isfinite(values).all() for values in history.values())

    def test_fit_counts_steps(self, fitted):
        model, _ = fitted
        assert int(model.optimizer.iterations) == 4  # two epochs of batches of 2 and 1

    def test_fit_validation_equals_evaluate(self, fitted):
        model, history = fitted
        scores = model.evaluate(Y, X, batch_size=3, verbose=0, return_dict=True)
        for name, value in scores.items():
            if name == "info_nce":  # with the other places of the batch, which are more
                assert value > history["val_info_nce"][-1]
                continue
            assert history[f"val_{name}"][-1] == pytest.approx(value, rel=1e-4), name

    def test_evaluate_weights_batches_by_size(self, fitted):
        model, _ = fitted
        x, y = np.copy(X), np.copy(Y)
        x[2], y[2] = 1.0, -1.0  # a pair unlike the others
        scores = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
        apart = [
            model.evaluate(x[part], y[part], verbose=0, return_dict=True)
            for part in (slice(0, 2), slice(2, 3))
        ]
        for name, value in scores.items():
            expected = (2 * apart[0][name] + apart[1][name]) / 3
            assert value == pytest.approx(expected, rel=1e-5), name
        assert abs(apart[0]["l1"] - apart[1]["l1"]) > 0.1

    def test_evaluate_is_repeatable_and_changes_nothing(self, fitted):
        model, _ = fitted
        before = model.get_weights()
        first, second = (model.evaluate(X, Y, verbose=0, return_dict=True) for _ in range(2))
        assert first == second
        assert_all_equal(before, model.get_weights())

    def test_predict_with_pair_returns_both_translations(self, fitted):
        model, _ = fitted
        x_hat, y_hat = model.predict((X, Y), batch_size=2, verbose=0)
        for predicted, called in zip((x_hat, y_hat), model((X, Y)), strict=True):
            np.testing.assert_allclose(predicted, called, atol=1e-5)

    def test_predict_with_batches_of_fit_raises(self, fitted):
        model, _ = fitted
        pairs = tf.data.Dataset.from_tensors((X, Y))
        with pytest.raises(ArgumentError, match=r"predict\(\) takes both as its x"):
            model.predict(pairs, verbose=0)

    @pytest.mark.parametrize(
        ("batch", "received"),
        [((X,), "no y"), ((X, Y, np.ones(3, np.float32)), "sample weights")],
        ids=["x only", "weighted"],
    )
    def test_fit_with_batches_other_than_pairs_raises(self, fitted, batch, received):
        model, _ = fitted
        with pytest.raises(ArgumentError, match=rf"pairs \(x, y\).*Received: {received}\."):
            model.fit(tf.data.Dataset.from_tensors(batch), shuffle=False, verbose=0)
        with pytest.raises(ArgumentError, match=rf"pairs \(x, y\).*Received: {received}\."):
            model.evaluate(tf.data.Dataset.from_tensors(batch), verbose=0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A model in the middle of its training, and the same model loaded from its file."""
    model = DisentangledSITS(CONFIG, seed=3)
    model.compile(
        default_optimizer(OptimizerConfig(1e-3, decay_steps=2)),
        keras.optimizers.SGD(0.1, momentum=0.9),
        ObjectiveConfig(lambda_kl=0.5, update="simultaneous"),
        run_eagerly=True,
    )
    model.fit(X, Y, batch_size=1, shuffle=False, verbose=0)
    file = tmp_path_factory.mktemp("saved") / "model.keras"
    model.save(file)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return model, keras.saving.load_model(file)


class TestSaving:
    def test_loaded_model_has_same_outputs(self, pair):
        model, loaded = pair
        assert_all_equal(model((X, Y)), loaded((X, Y)))

    def test_loaded_model_has_same_config(self, pair):
        model, loaded = pair
        assert isinstance(loaded, DisentangledSITS)
        assert (loaded.config, loaded.seed, loaded.name) == (model.config, model.seed, model.name)

    def test_loaded_model_is_compiled_as_before(self, pair):
        _, loaded = pair
        assert loaded.compiled
        assert loaded.objective == ObjectiveConfig(lambda_kl=0.5, update="simultaneous")
        d_optimizer, g_optimizer = loaded.optimizer.optimizers
        assert type(d_optimizer) is keras.optimizers.SGD
        assert d_optimizer.momentum == 0.9
        assert float(g_optimizer.learning_rate) == pytest.approx(5e-4)  # after 3 steps

    def test_loaded_model_has_same_optimizer_states(self, pair):
        model, loaded = pair
        assert int(loaded.optimizer.iterations) == 3
        assert [int(optimizer.iterations) for optimizer in loaded.optimizer.optimizers] == [3, 3]
        assert_all_equal(model.optimizer.variables, loaded.optimizer.variables)

    def test_loaded_model_trains_exactly_on(self, pair):
        model, loaded = pair
        losses = [
            m.fit(Y, X, batch_size=3, epochs=2, shuffle=False, verbose=0).history
            for m in (model, loaded)
        ]
        assert losses[0] == losses[1]
        assert_all_equal(model.get_weights(), loaded.get_weights())
        assert_all_equal(model.optimizer.variables, loaded.optimizer.variables)


def test_load_restores_seed_state(tmp_path):
    model = make_model()
    model.generate(X, Y, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.seed_generator.state, model.seed_generator.state)
    assert (
        np.asarray(loaded.seed_generator.state) != np.asarray(make_model().seed_generator.state)
    ).any()


def test_save_of_uncompiled_model_loads(tmp_path):
    model = DisentangledSITS(CONFIG)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert not loaded.compiled
    assert_all_equal(model((X, Y)), loaded((X, Y)))


def test_weights_file_roundtrips(trained, tmp_path):
    trained.save_weights(tmp_path / "model.weights.h5")
    other = DisentangledSITS(CONFIG, seed=4)
    assert np.abs(np.asarray(other((X, Y))[0]) - np.asarray(trained((X, Y))[0])).max() > 1e-3
    other.load_weights(tmp_path / "model.weights.h5")
    assert_all_equal(other((X, Y)), trained((X, Y)))
    np.testing.assert_array_equal(other.seed_generator.state, trained.seed_generator.state)


def test_config_roundtrips_model():
    model = DisentangledSITS(CONFIG, seed=5, name="mine")
    copy = DisentangledSITS.from_config(model.get_config())
    assert (copy.config, copy.seed, copy.name) == (CONFIG, 5, "mine")
    assert_all_equal(model.get_weights(), copy.get_weights())


def test_compile_config_roundtrips():
    model = make_model(0.25, 0.125, objective={"adversarial": "paper"})
    copy = DisentangledSITS(CONFIG)
    copy.compile_from_config(model.get_compile_config())
    d_optimizer, g_optimizer = copy.optimizer.optimizers
    assert (float(g_optimizer.learning_rate), float(d_optimizer.learning_rate)) == (0.25, 0.125)
    assert copy.objective == ObjectiveConfig(adversarial="paper")
    assert copy.run_eagerly
    assert copy.get_compile_config() == model.get_compile_config()


def test_compile_config_of_uncompiled_model_is_empty():
    assert DisentangledSITS(CONFIG).get_compile_config() == {}


class TestConstruction:
    def test_model_default_config_is_the_papers(self):
        assert DisentangledSITS().config == ModelConfig()

    def test_model_accepts_config_as_mapping(self):
        model = DisentangledSITS({"width": 1, "bands": ["B04", "B03"]})
        assert model.config == ModelConfig(bands=("B04", "B03"), width=1)
        assert model.shared_encoder.input_shape == (None, 64, 64, 2)

    def test_model_with_invalid_config_raises(self):
        with pytest.raises(ConfigError, match=r"ModelConfig\.width must be"):
            DisentangledSITS({"width": 0})

    def test_model_weights_depend_on_seed(self):
        weights = [DisentangledSITS(CONFIG, seed=seed).get_weights() for seed in (0, 0, 1)]
        assert_all_equal(weights[0], weights[1])
        assert any((a != b).any() for a, b in zip(weights[0], weights[2], strict=True))

    def test_variables_belong_to_one_optimizer_each(self, model):
        ours = [*model.generator_variables, *model.discriminator.trainable_variables]
        assert {id(v) for v in ours} == {id(v) for v in model.trainable_variables}
        assert len(ours) == len(model.trainable_variables)


class TestBfloat16:
    @pytest.fixture
    def model(self):
        model = DisentangledSITS(CONFIG, dtype="mixed_bfloat16")
        model.compile(run_eagerly=True)
        return model

    def test_dtype_policy_applies_to_layers_of_model_only(self, model):
        assert model.decoder.get_layer("decoder_1_conv").compute_dtype == "bfloat16"
        assert keras.config.dtype_policy().name == "float32"
        assert keras.layers.Dense(1).compute_dtype == "float32"

    def test_bfloat16_model_has_float32_weights_and_terms(self, model):
        model.update(X, Y)
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
        terms = model.generator_terms(X, Y, model.generate(X, Y, training=True), training=True)
        assert {keras.backend.standardize_dtype(t.dtype) for t in terms.values()} == {"float32"}
        assert all(np.isfinite(float(value)) for value in model.get_metrics_result().values())

    def test_bfloat16_outputs_are_close_to_float32(self, model):
        exact = DisentangledSITS(CONFIG)((X, Y))
        for image, expected in zip(model((X, Y)), exact, strict=True):
            assert keras.backend.standardize_dtype(image.dtype) == "float32"
            np.testing.assert_allclose(image, expected, atol=0.02)

    def test_bfloat16_model_is_loaded_with_its_policy(self, model, tmp_path):
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.dtype_policy.name == "mixed_bfloat16"
        assert loaded.decoder.get_layer("decoder_1_conv").compute_dtype == "bfloat16"
        assert_all_equal(model((X, Y)), loaded((X, Y)))


class TestGenerationFromRepresentations:
    def test_translate_decodes_location_and_date(self, trained):
        expected = trained.decoder([trained.shared_encoder(X), trained.exclusive_encoder(Y)[0]])
        image = trained.translate(X, Y)
        np.testing.assert_array_equal(image, expected)
        assert tuple(image.shape) == (3, 64, 64, 4)
        assert np.abs(np.asarray(image) - np.asarray(trained.translate(Y, X))).max() > 1e-3

    def test_translate_accepts_lists_and_float64(self, trained):
        image = trained.translate(X.astype(np.float64), Y.tolist())
        np.testing.assert_array_equal(image, trained.translate(X, Y))
        assert keras.backend.standardize_dtype(image.dtype) == "float32"

    def test_autoencode_equals_translate_to_itself(self, trained):
        np.testing.assert_array_equal(trained.autoencode(X), trained.translate(X, X))

    @pytest.mark.parametrize("first", [0, 2, -1])
    def test_reconstruct_series_equals_translate_of_each_date(self, trained, first):
        images = np.asarray(trained.reconstruct_series(X, shared_from=first))
        assert images.shape == (3, 64, 64, 4)
        for image, date in zip(images, X, strict=True):
            expected = trained.translate(X[first][None], date[None])
            np.testing.assert_allclose(image[None], expected, atol=1e-5)

    def test_reconstruct_series_default_is_first_date(self, trained):
        np.testing.assert_array_equal(
            trained.reconstruct_series(X), trained.reconstruct_series(X, shared_from=0)
        )

    @pytest.mark.parametrize("date", [3, -4])
    def test_reconstruct_series_with_index_out_of_range_raises(self, trained, date):
        with pytest.raises(ArgumentError, match=rf"index of one of 3 dates. Received: {date}\."):
            trained.reconstruct_series(X, shared_from=date)

    def test_sample_decodes_locations_with_normal_vectors(self, trained):
        samples = np.asarray(trained.sample(X[:2], num_samples=3, seed=0))
        assert samples.shape == (2, 3, 64, 64, 4)
        draws = keras.random.normal((3, 5), seed=0)
        for image, place in zip(samples, X, strict=False):
            shared = tf.repeat(trained.shared_encoder(place[None]), 3, axis=0)
            np.testing.assert_allclose(image, trained.decoder([shared, draws]), atol=1e-5)

    def test_sample_differs_and_repeats_with_seed(self, trained):
        first, again, other = (
            np.asarray(trained.sample(X[:1], num_samples=2, seed=seed))[0] for seed in (7, 7, 8)
        )
        assert np.abs(first[0] - first[1]).max() > 1e-3
        np.testing.assert_array_equal(first, again)
        assert np.abs(first - other).max() > 1e-3

    def test_interpolate_starts_and_ends_at_both_dates(self, trained):
        steps = np.asarray(trained.interpolate(X, X, Y, num_steps=3))
        assert steps.shape == (3, 3, 64, 64, 4)
        np.testing.assert_allclose(steps[:, 0], trained.autoencode(X), atol=1e-5)
        np.testing.assert_allclose(steps[:, -1], trained.translate(X, Y), atol=1e-5)
        first, last = (trained.exclusive_encoder(images)[0] for images in (X, Y))
        between = trained.decoder([trained.shared_encoder(X), (first + last) / 2])
        np.testing.assert_allclose(steps[:, 1], between, atol=1e-5)

    def test_interpolate_with_wrong_arguments_raises(self, trained):
        with pytest.raises(ArgumentError, match=r"num_steps must be at least 2.*num_steps=1"):
            trained.interpolate(X, X, Y, num_steps=1)
        with pytest.raises(ArgumentError, match=r"same batch size\. Received: 3, 3 and 2"):
            trained.interpolate(X, X, Y[:2], num_steps=2)

    def test_combine_equals_translate_of_each_combination(self, trained):
        images = np.asarray(trained.combine(X[:2], Y, [1, 0, 1], [2, 0, 0]))
        for image, place, date in zip(images, (1, 0, 1), (2, 0, 0), strict=True):
            expected = trained.translate(X[place][None], Y[date][None])
            np.testing.assert_allclose(image[None], expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("place_of", "date_of", "message"),
        [
            ([0, 3], [0, 0], r"place_of must contain indices from 0 to 2\. Received: \[0, 3\]"),
            ([0, 0], [0, -1], r"date_of must contain indices from 0 to 2\. Received: \[0, -1\]"),
            ([], [], "place_of must contain indices"),
            ([0, 1], [0], "same length"),
        ],
    )
    def test_combine_with_indices_out_of_range_raises(self, trained, place_of, date_of, message):
        with pytest.raises(ArgumentError, match=message):
            trained.combine(X, Y, place_of, date_of)

    def test_generation_is_repeatable_and_changes_nothing(self, trained):
        before = trained.get_weights()
        first, second = (
            (
                trained.translate(X, Y),
                trained.autoencode(X),
                trained.reconstruct_series(X),
                trained.sample(X, num_samples=1, seed=0),
                trained.interpolate(X, X, Y, num_steps=2),
            )
            for _ in range(2)
        )
        assert_all_equal(first, second)
        assert_all_equal(before, trained.get_weights())

    @pytest.mark.parametrize(
        ("call", "name"),
        [
            (lambda model, images: model.translate(images, X), "shared_from"),
            (lambda model, images: model.translate(X, images), "exclusive_from"),
            (lambda model, images: model.autoencode(images), "shared_from"),
            (lambda model, images: model.reconstruct_series(images), "series"),
            (lambda model, images: model.sample(images, 1, seed=0), "images"),
            (lambda model, images: model.combine(images, X, [0], [0]), "shared_from"),
            (lambda model, images: model.interpolate(X, images, X, 2), "first"),
            (lambda model, images: model.interpolate(X, X, images, 2), "last"),
        ],
        ids=[
            *("translate from", "translate to", "autoencode", "reconstruct_series", "sample"),
            *("combine", "interpolate from", "interpolate to"),
        ],
    )
    @pytest.mark.parametrize(
        "shape", [(64, 64, 4), (2, 64, 64, 3), (2, 32, 64, 4), (2, 1, 64, 64, 4)]
    )
    def test_generation_with_wrong_shape_raises(self, trained, call, name, shape):
        with pytest.raises(ArgumentError) as error:
            call(trained, np.zeros(shape))
        assert str(error.value) == (
            f"{name} has the wrong shape. Expected (batch, 64, 64, 4), bands B02, B03, B04, B08. "
            f"Received: {shape}."
        )

    def test_translate_with_different_batch_sizes_raises(self, trained):
        with pytest.raises(ArgumentError, match=r"same batch size\. Received: 3 and 2\."):
            trained.translate(X, Y[:2])


@pytest.fixture(scope="module")
def context():
    """A model that takes pairs with context."""
    model = DisentangledSITS(dataclasses.replace(CONFIG, padding="context"), seed=3)
    model.compile(keras.optimizers.SGD(0.05), keras.optimizers.SGD(0.05), run_eagerly=True)
    return model


@pytest.fixture(scope="module")
def in_context():
    pads = ((0, 0), (31, 47), (31, 47), (0, 0))
    return [np.pad(images, pads, constant_values=0.5) for images in (X, Y)]


class TestContext:
    """With padding="context", pairs can include their context."""

    def test_context_margin_follows_padding(self, context, trained):
        assert context.context_margin == (31, 47)
        assert trained.context_margin == (0, 0)

    def test_update_in_context_gives_every_variable_a_gradient(self, context, in_context):
        for pair in (in_context, (X, Y)):
            before = values_of(context.trainable_variables)
            context.update(*pair)
            for variable, old in zip(context.trainable_variables, before, strict=True):
                assert (np.asarray(variable) != old).any(), variable.path

    def test_terms_in_context_compare_cropped_images(self, context, in_context):
        generated = context.generate(*in_context)
        assert generated.images.shape == (6, 64, 64, 4)
        inside = context.generator_terms(*in_context, generated, training=False)
        alone = context.generator_terms(X, Y, generated, training=False)
        assert float(inside["l1"]) == pytest.approx(float(alone["l1"]))
        some, other = (
            context.discriminator_terms(*pair, generated.images, training=False)
            for pair in (in_context, (X, Y))
        )
        assert float(some["d_real"]) == pytest.approx(float(other["d_real"]))

    def test_encoders_in_context_use_the_context(self, context, in_context):
        inside, alone = context.generate(*in_context), context.generate(X, Y)
        assert np.abs(inside.shared - alone.shared).max() > 1e-3
        assert np.abs(inside.mean - alone.mean).max() > 1e-3

    def test_fit_and_evaluate_accept_pairs_with_and_without_context(self, context, in_context):
        for pair in (in_context, (X, Y)):
            history = context.fit(*pair, batch_size=3, verbose=0).history
            assert np.isfinite(history["loss"]).all()
            assert np.isfinite(context.evaluate(*pair, verbose=0)).all()

    def test_generation_accepts_images_with_context(self, context, in_context):
        x_hat, _ = context.call(in_context)
        translated = context.translate(in_context[1], in_context[0])
        np.testing.assert_allclose(translated, x_hat, rtol=0, atol=1e-5)
        with pytest.raises(ArgumentError, match="64, 64, 4\\), or 142 for 64 with context, bands"):
            context.translate(X[:, :60], X)

    def test_model_in_context_is_saved_with_its_padding(self, context, tmp_path):
        context.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.config.padding == "context"
        np.testing.assert_allclose(loaded.translate(X, Y), context.translate(X, Y), atol=1e-6)


@pytest.fixture(scope="module", params=["zeros", "context"])
def skips(request):
    """A model whose decoder has skip connections, after some steps."""
    config = dataclasses.replace(CONFIG, padding=request.param, decoder_skips=True)
    model = DisentangledSITS(config, seed=3)
    model.compile(default_optimizer(OptimizerConfig(1e-3)), run_eagerly=True)
    for _ in range(2):
        model.update(X, Y)
    return model


class TestDecoderSkips:
    def test_update_with_skips_gives_every_variable_a_gradient(self, skips):
        before = values_of(skips.trainable_variables)
        skips.update(X, Y)
        for variable, old in zip(skips.trainable_variables, before, strict=True):
            assert (np.asarray(variable) != old).any(), variable.path

    def test_generate_with_skips_has_layers_of_the_other_date(self, skips, monkeypatch):
        calls = spy_on(monkeypatch, skips.decoder)
        skips.generate(X, Y)
        ((*location, exclusive),) = calls
        of_x, of_y = (skips.encode_location(images) for images in (X, Y))
        for given, x, y in zip(location, of_x, of_y, strict=True):
            np.testing.assert_allclose(given[:3], y, atol=1e-5)
            np.testing.assert_allclose(given[3:], x, atol=1e-5)
        np.testing.assert_allclose(exclusive[:3], skips.exclusive_encoder(X)[0], atol=1e-5)

    def test_generation_with_skips_agrees_between_functions(self, skips):
        translated = np.asarray(skips.translate(X, Y))
        close = {"rtol": 0, "atol": 1e-5}
        series = np.asarray(skips.reconstruct_series(Y, shared_from=1))
        np.testing.assert_allclose(series, skips.translate(Y[[1, 1, 1]], Y), **close)
        combined = skips.combine(X, Y, [2, 0], [2, 0])
        np.testing.assert_allclose(combined, translated[[2, 0]], **close)
        steps = np.asarray(skips.interpolate(X, X, Y, 3))
        np.testing.assert_allclose(steps[:, -1], translated, **close)
        samples = np.asarray(skips.sample(X, 2, seed=0))
        assert samples.shape == (3, 2, 64, 64, 4)
        np.testing.assert_allclose(samples[:1], skips.sample(X[:1], 2, seed=0), **close)

    def test_model_with_skips_is_saved_once_with_its_weights(self, skips, tmp_path):
        skips.translate(X, Y)  # builds the network of the layers
        skips.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert loaded.config.decoder_skips
        assert loaded.count_params() == skips.count_params()
        np.testing.assert_allclose(loaded.translate(X, Y), skips.translate(X, Y), atol=1e-6)


@pytest.fixture(scope="module")
def real_pairs(real_data):
    """Eight crops of one place on the first and the last date of its series."""
    folder = real_data / "series" / "earthnet-29SND-1081-1721"
    corners = [(row, col) for row in (0, 32, 64) for col in (0, 32, 64)][:8]
    pairs = []
    for date in ("2017-06-30", "2017-11-17"):
        stored = read_stored(folder / f"{date}.tif", CONFIG.bands)
        image = to_network(stored, CONFIG.band_max)
        pairs.append(np.stack([image[row : row + 64, col : col + 64] for row, col in corners]))
    return tuple(pairs)


def real_model() -> DisentangledSITS:
    model = DisentangledSITS(ModelConfig(width=8, shared_channels=16, exclusive_dim=16))
    model.compile(*(keras.optimizers.Adam(3e-3, beta_1=0.5) for _ in range(2)))
    return model


def test_posterior_stays_bounded_in_first_steps(real_pairs):
    model = real_model()
    divergences = []
    for _ in range(4):
        model.reset_metrics()
        model.update(*real_pairs)
        divergences.append(float(model.get_metrics_result()["kl"]))
    assert max(divergences) < 200


@pytest.mark.slow
def test_fit_overfits_eight_real_pairs(real_pairs):
    x, y = real_pairs
    model = real_model()
    steps = tf.data.Dataset.from_tensors(real_pairs).repeat(50)

    def l1() -> float:
        # Without noise and with the moving statistics, as the model is used.
        return model.evaluate(x, y, verbose=0, return_dict=True)["l1"]

    goal = l1() / 5
    # Out of reach without the dates: the other date's image, perfectly generated, costs more.
    assert goal < np.abs(x - y).mean()
    reached = []
    while not reached or reached[-1] > goal:
        assert len(reached) < 12, f"l1 is {reached} after each 50 steps, expected {goal:.3f}"
        model.fit(steps, shuffle=False, verbose=0)
        reached.append(l1())


# What `fit` looks at


@pytest.mark.parametrize(
    ("shape", "high", "message"),
    [
        ((2, 64, 64, 4), 5000, r"Expected values in \[-1, 1\].* values from 0 to 5000\."),
        ((2, 64, 64, 3), 0, r"wrong shape\. Expected \(batch, 64, 64, 4\), bands B02, B03, B04"),
        ((2, 128, 128, 4), 0, r"Received: \(2, 128, 128, 4\)\."),
    ],
)
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_fit_with_wrong_images_raises(kind, shape, high, message):
    model = DisentangledSITS(CONFIG)
    model.compile()
    images = np.zeros(shape, np.float32)
    images[0, 0, 0, 0] = high
    if kind == "arrays":
        with pytest.raises(ArgumentError, match=message):
            model.fit(images, images, verbose=0)
    else:
        pairs = tf.data.Dataset.from_tensors((images, images))
        with pytest.raises(ArgumentError, match=message):
            model.fit(pairs, verbose=0)


def test_translate_with_values_out_of_range_raises():
    images = np.full((1, 64, 64, 4), 0.3 * 10_000, np.float32)
    with pytest.raises(ArgumentError, match=r"Expected values in \[-1, 1\].* from 3000 to 3000\."):
        DisentangledSITS(CONFIG).translate(images, images)


# Global settings of Keras and TensorFlow


@pytest.fixture
def restored_settings():
    keep = (keras.config.floatx(), keras.config.image_data_format(), keras.config.dtype_policy())
    yield
    keras.config.set_floatx(keep[0])
    keras.config.set_image_data_format(keep[1])
    keras.config.set_dtype_policy(keep[2])
    keras.config.set_max_epochs(None)
    keras.config.set_max_steps_per_epoch(None)
    tf.config.run_functions_eagerly(False)


@pytest.mark.usefixtures("restored_settings")
class TestGlobalSettings:
    def test_channels_first_gives_the_same_networks(self):
        expected = DisentangledSITS(CONFIG, seed=1)
        keras.config.set_image_data_format("channels_first")
        model = DisentangledSITS(CONFIG, seed=1)
        for one, other in zip(model.get_weights(), expected.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
        for one, other in zip(model((X, Y)), expected((X, Y)), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(model.discriminator(X), expected.discriminator(X))

    def test_channels_first_gives_the_same_encoders_in_context(self):
        config = dataclasses.replace(CONFIG, padding="context")
        expected = DisentangledSITS(config, seed=1)
        keras.config.set_image_data_format("channels_first")
        model = DisentangledSITS(config, seed=1)
        for one, other in zip(model((X, Y)), expected((X, Y)), strict=True):
            np.testing.assert_array_equal(one, other)

    def test_floatx_float64_trains_and_samples(self):
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        model = DisentangledSITS(CONFIG, seed=1)
        model.compile(run_eagerly=True)
        terms = model.train_on_batch(X, Y, return_dict=True)
        assert all(np.isfinite(value) for value in terms.values())
        assert np.isfinite(model.sample(X[:1], 2, seed=0)).all()

    def test_floatx_float64_with_float32_model_trains(self):
        keras.config.set_floatx("float64")
        model = DisentangledSITS(CONFIG, seed=1, dtype="float32")
        model.compile(run_eagerly=True)
        terms = model.train_on_batch(X, Y, return_dict=True)
        assert all(np.isfinite(value) for value in terms.values())

    def test_floatx_float16_raises(self):
        keras.config.set_floatx("float16")
        model = DisentangledSITS(CONFIG, seed=1, dtype="float32")
        with pytest.raises(ConfigError, match=r"floatx\(\) is 'float16'.*keras\.json"):
            model.compile()

    def test_global_mixed_float16_raises_in_training_only(self, tmp_path):
        expected = DisentangledSITS(CONFIG, seed=1)
        expected.save(tmp_path / "model.keras")
        keras.config.set_dtype_policy("mixed_float16")
        with pytest.raises(ConfigError, match="'mixed_float16' is not supported"):
            DisentangledSITS(CONFIG).compile()
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(loaded.translate(X, Y), expected.translate(X, Y))

    def test_functions_run_eagerly_train(self):
        tf.config.run_functions_eagerly(True)
        model = DisentangledSITS(CONFIG, seed=1)
        model.compile()
        assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()

    @pytest.mark.parametrize("name", ["epochs", "steps_per_epoch"])
    def test_limits_of_keras_raise_in_train(self, name, tiny_records, tiny_config, tmp_path):
        getattr(keras.config, f"set_max_{name}")(1)
        with pytest.raises(ConfigError, match=f"limited by KERAS_MAX_{name.upper()}"):
            train(tiny_records, tmp_path / "run", tiny_config)
        assert not (tmp_path / "run").exists()
