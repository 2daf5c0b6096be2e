"""`validation=True` records the forward passes of evaluation as a separate run."""

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)

import models
from activation_monitor import ActivationMonitor, read_recording
from activation_monitor.analysis import records

X, Y = models.data(samples=20)
UNSEEN = models.data(samples=21)[0][:13] * 3.0, models.data(samples=13)[1]


def network(**options):
    """A network with dropout, which is active only in training."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dropout(0.5, name="dropout"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile("sgd", "mse", **options)
    return model


def hidden(model, x):
    """The output of the hidden layer, computed in float64 numpy."""
    kernel, bias = (w.astype(np.float64) for w in model.get_layer("hidden").get_weights())
    return np.maximum(x.astype(np.float64) @ kernel + bias, 0.0)


COMPILED = [
    {},
    pytest.param({"jit_compile": True}, marks=pytest.mark.slow),
    {"run_eagerly": True},
]


@pytest.mark.parametrize("options", COMPILED)
def test_all_batches_of_an_evaluation_make_one_snapshot(options):
    """13 samples in batches of 5 equal float64 numpy over all samples."""
    model, monitor = network(**options), ActivationMonitor(validation=True)
    expected = model.evaluate(*UNSEEN, batch_size=5, verbose=0)
    loss = model.evaluate(*UNSEEN, batch_size=5, verbose=0, callbacks=[monitor])
    np.testing.assert_array_equal(loss, expected)
    (snapshot,) = monitor.validation_recording
    assert len(monitor.recording) == 0
    row = snapshot.names.index("net/hidden")
    reference = hidden(model, UNSEEN[0])
    assert snapshot.field("count")[row] == reference.size
    assert snapshot.field("samples")[row] == 13
    for name, value in {
        "mean": reference.mean(),
        "std": reference.std(),
        "minimum": reference.min(),
        "maximum": reference.max(),
        "zero_fraction": (reference == 0).mean(),
    }.items():
        np.testing.assert_allclose(snapshot.statistic(name)[row], value, rtol=1e-5)
    # Dropout is inactive in evaluation, so its output equals its input.
    np.testing.assert_array_equal(
        snapshot.records()[snapshot.names.index("net/dropout")], snapshot.records()[row]
    )


def test_validation_in_fit_is_numbered_by_the_steps_that_training_has_reached(tmp_path):
    """The steps are 4, 8 and 12, as in Keras, and training does not change."""
    results = []
    for validation in (False, True):
        keras.utils.set_random_seed(0)
        model = network()
        monitor = ActivationMonitor(
            tmp_path / str(validation), sample_every=3, validation=validation
        )
        model.fit(
            X,
            Y,
            batch_size=5,
            epochs=3,
            verbose=0,
            validation_data=UNSEEN,
            callbacks=[monitor],
        )
        results.append([monitor.recording[-1].records(), *model.get_weights()])
    for without, with_validation in zip(*results, strict=True):
        np.testing.assert_array_equal(with_validation, without)
    assert monitor.validation_recording.steps == [4, 8, 12]
    assert monitor.recording.steps == [0, 1, 2, 3, 5, 6, 9, 10]
    np.testing.assert_array_equal(
        monitor.validation_recording[-1].field("mean")[1],
        pytest.approx(hidden(model, UNSEEN[0]).mean(), rel=1e-5),
    )
    # There are two runs in one folder, with the same tags.
    runs = {path.name for path in (tmp_path / "True").iterdir()}
    assert runs == {"activations", "activations_validation"}
    read = read_recording(tmp_path / "True" / "activations_validation")
    assert read.steps == [4, 8, 12]
    np.testing.assert_array_equal(
        read[0].records(), monitor.validation_recording[0].records()
    )
    tags = []
    for run in sorted(runs):
        events = EventAccumulator(str(tmp_path / "True" / run)).Reload()
        tags.append(
            {t for t in events.Tags()["tensors"] if t.startswith("~activation_mean")}
        )
    assert tags[0] == tags[1] and len(tags[0]) == 4
    assert {path.name for path in (tmp_path / "False").iterdir()} == {"activations"}


def test_without_it_evaluation_is_not_measured():
    """Neither during `fit` nor in a separate `evaluate`."""
    model, monitor = network(), ActivationMonitor(sample_every=1)
    model.fit(X, Y, batch_size=20, verbose=0, validation_data=UNSEEN, callbacks=[monitor])
    model.evaluate(*UNSEEN, verbose=0, callbacks=[monitor])
    assert len(monitor.validation_recording) == 0
    (snapshot,) = monitor.recording
    np.testing.assert_array_equal(snapshot.field("samples"), 20.0)


def test_evaluation_runs_the_models_own_function_before_and_after():
    """No function stays replaced, even if an evaluation is interrupted."""

    class Break(keras.callbacks.Callback):
        def on_test_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyError("the user's own")

    model, monitor = network(), ActivationMonitor(validation=True)
    model.evaluate(*UNSEEN, verbose=0)
    own = model.test_function
    with pytest.raises(KeyError):
        model.evaluate(*UNSEEN, batch_size=5, verbose=0, callbacks=[monitor, Break()])
    assert model.test_function is own
    assert "test_step" not in model.__dict__
    model.evaluate(*UNSEEN, batch_size=5, verbose=0, callbacks=[monitor])
    assert model.test_function is own
    (snapshot,) = monitor.validation_recording
    np.testing.assert_array_equal(snapshot.field("samples"), 13.0)


def test_an_evaluation_is_never_judged():
    """Findings come from training snapshots only."""
    model = models.perceptron(depth=20, width=64, initializer="random_normal")
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(validation=True)
    model.evaluate(X, Y, verbose=0, callbacks=[monitor])  # a warning would be an error
    assert monitor.diagnosis.findings == ()


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="Keras runs one step at a time on PyTorch"
)
def test_steps_that_run_together_are_merged():
    """Each sample counts once."""
    model, monitor = network(steps_per_execution=2), ActivationMonitor(validation=True)
    model.evaluate(X, Y, batch_size=5, verbose=0, callbacks=[monitor])
    (snapshot,) = monitor.validation_recording
    np.testing.assert_array_equal(snapshot.field("samples"), 20.0)


# -- padded time steps


def sequence_model(**options):
    """Tokens with padding 0, an embedding, a layer per time step and an LSTM."""
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            keras.layers.Embedding(10, 4, mask_zero=True, name="embedding"),
            keras.layers.Dense(5, "relu", name="each"),
            keras.layers.LSTM(3, name="lstm"),
            keras.layers.Dense(1, name="head"),
        ],
        name="net",
    )
    model.compile(keras.optimizers.SGD(0.0), "mse", **options)
    return model


@pytest.mark.parametrize("options", COMPILED)
def test_padded_time_steps_are_left_out(options):
    """This holds for the embedding and the layer after it. The LSTM output has no mask."""
    tokens = np.array([[3, 1, 4, 0, 0, 0], [2, 7, 1, 8, 0, 0], [5, 0, 0, 0, 0, 0]], "int32")
    model = sequence_model(**options)
    monitor = ActivationMonitor()
    model.fit(tokens, np.zeros((3, 1)), verbose=0, callbacks=[monitor])
    snapshot = monitor.recording[0]
    there = tokens > 0
    table, kernel, bias = (w.astype(np.float64) for w in model.get_weights()[:3])
    embedded = table[tokens]
    each = np.maximum(embedded @ kernel + bias, 0.0)
    for name, values in {"net/embedding": embedded, "net/each": each}.items():
        row = snapshot.names.index(name)
        kept = values[there]
        assert snapshot.field("count")[row] == kept.size == 8 * values.shape[-1]
        assert snapshot.field("samples")[row] == 3
        assert snapshot.field("zeros")[row] == (kept == 0).sum()
        assert snapshot.field("dead_units")[row] == (kept == 0).all(axis=0).sum()
        for field, value in {
            "mean": kept.mean(),
            "variance": kept.var(),
            "second_moment": (kept**2).mean(),
            "minimum": kept.min(),
            "maximum": kept.max(),
        }.items():
            measured = snapshot.field(field)[row]
            np.testing.assert_allclose(measured, value, rtol=1e-5, atol=1e-9)
        # Deviations of each unit (time step, channel) from its mean over unmasked samples.
        spread = sum(
            ((unit - unit.mean()) ** 2).sum()
            for step in range(6)
            for unit in values[there[:, step], step].T
            if unit.size
        )
        np.testing.assert_allclose(
            snapshot.field("within_variance")[row], spread / kept.size, rtol=1e-5
        )
        counted = snapshot.histogram(name)
        assert counted.rows[:, 2].sum() == kept.size
    row = snapshot.names.index("net/lstm")
    assert snapshot.field("count")[row] == 9


def test_a_batch_of_nothing_but_padding_is_an_empty_record():
    """The record is neither zeros nor NaN."""
    # There is a finding, correctly: the LSTM outputs only zeros.
    model, monitor = sequence_model(), ActivationMonitor(on_finding=lambda finding: None)
    model.fit(np.zeros((3, 6), "int32"), np.zeros((3, 1)), verbose=0, callbacks=[monitor])
    row = monitor.recording[0].names.index("net/each")
    np.testing.assert_array_equal(monitor.recording[0].records()[row], records.empty())


def test_a_mask_that_masks_nothing_changes_nothing():
    """The statistics equal those without a mask."""
    tokens = np.arange(1, 10).reshape(3, 3).repeat(2, axis=1).astype("int32")
    found = []
    for mask_zero in (True, False):
        keras.utils.set_random_seed(0)
        model, monitor = sequence_model(), ActivationMonitor()
        model.get_layer("embedding").mask_zero = mask_zero
        model.get_layer("embedding").supports_masking = mask_zero
        model.fit(tokens, np.zeros((3, 1)), verbose=0, callbacks=[monitor])
        found.append(monitor.recording[0].records())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-12)
