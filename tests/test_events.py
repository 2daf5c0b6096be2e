"""The event file: what TensorBoard's own readers find in it, and reading it back."""

import dataclasses
import json
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.plugin_event_accumulator import (
    EventAccumulator,
)
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

import models
from activation_monitor import ActivationMonitor, diagnose, read_recording
from activation_monitor.analysis import activity, histogram, moving, records
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.storage import event_file, log_format, tabs, writer
from activation_monitor.storage.reader import read_run, read_runs
from activation_monitor.views.figures.image import picture


def accumulated(folder):
    """Everything that TensorBoard's Python reader finds in a run folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def values(accumulator, tag):
    return {
        event.step: tensor_util.make_ndarray(event.tensor_proto)
        for event in accumulator.Tensors(tag)
    }


COUNTED = {"output", "output_gradient", "weight", "weight_gradient"}
"""The quantities that have histograms."""

DATA = Path(__file__).parent / "data"

LAYERS = (
    LayerInfo("a", "InputLayer", "input", "linear", 3, "float32", ()),
    LayerInfo(
        *("b", "Conv2D", "weight", "tanh", 4, "float32", (0,)),
        fan_in=8.5,
        initializer="HeNormal()",
    ),
)


def taken(step, kernels=None):
    """A snapshot of two layers, the second one with a kernel."""
    rng = np.random.default_rng(step)
    found = [records.measure(rng.standard_normal((5, 3)), "tanh") for _ in LAYERS]
    weights = {} if kernels is None else {"weight": kernels}
    return Snapshot(step, LAYERS, {"output": np.stack(found)} | weights)


def kernels():
    """Records of the kernels: an empty one, and one of numbers that float32 cannot hold."""
    return np.stack([records.empty(), records.measure(np.full((2, 3), 1e-60) / 3)])


def written_and_read(folder, *snapshots):
    """Snapshots after writing and reading."""
    log = writer.EventLog(folder)
    for snapshot in snapshots:
        log.write(snapshot)
    log.close()
    return read_recording(folder)


def whole(step):
    """A snapshot of all quantities, with values that float32 cannot hold, and a loss."""
    rng = np.random.default_rng(step)

    def tensors(size):
        x = size * rng.standard_normal((7, 3))
        x[0, 0], x[1, 1] = np.nan, 1 / 3 * size
        return x

    sizes = dict(zip(records.QUANTITIES, (1.0, 1e-60, 1e150, 5e-324, 1e-3), strict=True))
    quantities = {
        name: np.stack([records.empty(), records.measure(tensors(size))])
        for name, size in sizes.items()
    }
    vectors = histogram.none(2)
    vectors[1, :3], vectors[1, 3:] = (3, -1 / 3, 1e-60), np.arange(histogram.BUCKETS)
    counted = {"output": vectors, "output_gradient": 2.0 * vectors}
    return Snapshot(step, LAYERS, quantities, counted, steps=3, loss=1 / 3 + step)


def assert_same(read, written):
    """All fields of a snapshot are equal, bit for bit."""
    for ours, theirs in zip(written, read, strict=True):
        assert theirs.step == ours.step
        assert theirs.layers == ours.layers
        assert theirs.steps == ours.steps
        for name in ("quantities", "histograms"):
            before, after = getattr(ours, name), getattr(theirs, name)
            assert before.keys() == after.keys(), name
            for quantity in before:
                about = f"{name} of {quantity}"
                np.testing.assert_array_equal(after[quantity], before[quantity], about)
        np.testing.assert_array_equal(theirs.loss, ours.loss)
        assert (theirs.activity is None) == (ours.activity is None)
        for name in activity.FIELDS:
            np.testing.assert_array_equal(theirs.of_units(name), ours.of_units(name), name)
        assert (theirs.moving is None) == (ours.moving is None)
        for name in moving.FIELDS:
            np.testing.assert_array_equal(
                theirs.of_moving(name), ours.of_moving(name), name
            )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A monitored fit: its log folder, its monitor."""
    folder = tmp_path_factory.mktemp("logs")
    model = models.image_network()
    model.compile("sgd", "sparse_categorical_crossentropy")
    monitor, _ = models.watch(
        model, models.IMAGES, models.LABELS, log_dir=folder, sample_every=3
    )
    return folder, monitor


def of(names, group, name):
    """The tag of a layer in TensorBoard's tabs, which sort it by its position."""
    return f"~{group}/{names.index(name):03d}_{name}"


def test_every_tensor_has_its_scalars_and_histograms(run):
    """With the tags in the documentation, for the plugins that show them: two scalars of
    each tensor, one of the gradient of each output and one of each kernel."""
    folder, monitor = run
    names = monitor.recording[0].names
    assert len(names) == 9
    first = names[0]  # the input of the model, which has no gradient
    assert first.endswith("conv:input")
    back = {*names} - {first}
    kernels = {"conv", "branch", "hidden", "head"}
    accumulator = accumulated(folder / "activations")
    plugins = {
        "scalars": {
            of(names, group, name)
            for group in ("activation_mean", "activation_std")
            for name in names
        }
        | {of(names, "gradient_rms", name) for name in back}
        | {of(names, "update_ratio", name) for name in kernels},
        "histograms": {of(names, "activations", name) for name in names}
        | {of(names, "gradients", name) for name in back},
        "text": {"activation_monitor/findings"},
        "images": {"activation_monitor/depth_by_step"},
        "activation_monitor": {
            f"activation_monitor/{own}"
            for own in (
                *(f"records/{quantity}" for quantity in records.QUANTITIES),
                *(f"histograms/{quantity}" for quantity in COUNTED),
                *("layers", "step", "activity", "moving", "optimizers", "kernels_given"),
            )
        },
    }
    for plugin, tags in plugins.items():
        assert set(accumulator.PluginTagToContent(plugin)) == tags
    assert set(accumulator.Tags()["tensors"]) == set().union(*plugins.values())


def test_the_scalars_are_the_statistics(run):
    """Mean and std of each layer at each sampled step, as rank 0, which TensorBoard
    requires."""
    folder, monitor = run
    accumulator = accumulated(folder / "activations")
    assert monitor.recording.steps == [0, 1, 2, 3, 5, 6]
    for tag, field, finish in (("mean", "mean", lambda v: v), ("std", "variance", np.sqrt)):
        for name in ("conv", "head"):
            names = monitor.recording[0].names
            written = values(accumulator, of(names, f"activation_{tag}", name))
            for snapshot in monitor.recording:
                record = snapshot.records()[snapshot.names.index(name)]
                assert written[snapshot.step].shape == ()
                expected = finish(records.field(record, field))
                np.testing.assert_allclose(written[snapshot.step], expected, rtol=1e-6)


def test_the_scalars_of_the_backward_signal_are_those_measured(run):
    """Rms of the gradient of each output; size of each update over that of its kernel."""
    folder, monitor = run
    accumulator = accumulated(folder / "activations")
    names = monitor.recording[0].names
    for name in ("conv", "norm", "head"):
        written = values(accumulator, of(names, "gradient_rms", name))
        assert [*written] == monitor.recording.steps
        for snapshot in monitor.recording:
            record = snapshot.quantities["output_gradient"][snapshot.names.index(name)]
            expected = np.sqrt(records.field(record, "second_moment"))
            assert expected > 0 and written[snapshot.step].shape == ()
            np.testing.assert_allclose(written[snapshot.step], expected, rtol=1e-6)
    for name in ("conv", "head"):
        written = values(accumulator, of(names, "update_ratio", name))
        assert [*written] == monitor.recording.steps
        for snapshot in monitor.recording:
            row = snapshot.names.index(name)
            squares = (
                records.field(snapshot.quantities[of][row], "second_moment")
                for of in ("weight_update", "weight")
            )
            update, weight = squares
            expected = np.sqrt(update / weight)
            assert expected > 0
            np.testing.assert_allclose(written[snapshot.step], expected, rtol=1e-6)


def test_histograms_of_gradients_are_copied_for_the_tab(run):
    """With pairs of buckets as one, as for the outputs, and a description."""
    folder, monitor = run
    accumulator = accumulated(folder / "activations")
    tag = of(monitor.recording[0].names, "gradients", "hidden")
    written = values(accumulator, tag)
    assert [*written] == monitor.recording.steps
    for snapshot in monitor.recording:
        rows = snapshot.histogram("hidden", "output_gradient").rows
        copy = written[snapshot.step]
        np.testing.assert_array_equal(copy[:, 2], rows[::2, 2] + rows[1::2, 2])
        np.testing.assert_allclose(copy[[0, -1], [0, 1]], rows[[0, -1], [0, 1]], rtol=1e-6)
        assert rows[0, 0] < 0 < rows[-1, 1]
    metadata = accumulator.SummaryMetadata(tag)
    assert "here one element in 1." in metadata.summary_description


def test_a_step_without_an_update_has_no_scalar_of_it(tmp_path):
    """Within gradient accumulation. The gradient is there."""
    model = models.perceptron()
    model.compile(keras.optimizers.SGD(0.01, gradient_accumulation_steps=2), "mse")
    x, y = models.data(48)
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path, sample_every=1)
    accumulator = accumulated(tmp_path / "activations")
    assert monitor.recording.steps == [*range(6)]
    assert [*values(accumulator, "~update_ratio/004_net/head")] == [1, 3, 5]
    assert [*values(accumulator, "~gradient_rms/004_net/head")] == [*range(6)]


def test_without_gradients_there_are_no_copies_of_them(tmp_path):
    """Weights and updates are measured in any case."""
    models.watch(models.perceptron(), *models.data(), log_dir=tmp_path, gradients=False)
    accumulator = accumulated(tmp_path / "activations")
    tags = {tag.split("/")[0] for tag in accumulator.Tags()["tensors"]}
    assert not {"~gradient_rms", "~gradients"} & tags and "~update_ratio" in tags


def test_a_picture_of_all_layers_and_steps_ends_the_log(run):
    """At the last step, with axes and a key. TensorFlow decodes it to the same pixels."""
    folder, monitor = run
    written = values(
        accumulated(folder / "activations"), "activation_monitor/depth_by_step"
    )
    ((step, (width, height, png)),) = written.items()
    assert step == monitor.recording.steps[-1]
    pixels = tf.io.decode_png(png).numpy()
    assert pixels.shape == (int(height), int(width), 3)
    np.testing.assert_array_equal(pixels, picture(monitor.recording))


def test_scalars_can_be_switched_off(tmp_path):
    """All other data are there and are read back the same."""
    monitor, _ = models.watch(
        models.perceptron(), *models.data(), log_dir=tmp_path, scalars=False
    )
    accumulator = accumulated(tmp_path / "activations")
    with pytest.raises(KeyError):
        accumulator.PluginTagToContent("scalars")
    for plugin in ("histograms", "text", "images", "activation_monitor"):
        assert accumulator.PluginTagToContent(plugin)
    assert_same(read_recording(tmp_path), monitor.recording)


def test_a_picture_that_fails_does_not_end_the_log(tmp_path, monkeypatch):
    """It warns, and all measurements are there."""

    def fails(recording):
        raise OSError("no paint")

    monkeypatch.setattr("activation_monitor.views.figures.image.heat_image", fails)
    monitor, warned = models.watch(models.perceptron(), *models.data(), log_dir=tmp_path)
    (message,) = warned
    assert "the log has no picture, training goes on (OSError: no paint)" in message
    assert_same(read_recording(tmp_path), monitor.recording)


def test_history_is_read_back_without_loss(run):
    """Each number, layer and histogram. The diagnosis is the same."""
    folder, monitor = run
    for where in (folder, folder / "activations"):
        read = read_recording(where)
        assert_same(read, monitor.recording)
        assert str(diagnose(read)) == str(monitor.diagnosis)
    assert read[0].quantities.get("weight") is not None
    conv = read[0].layers[read[0].names.index("conv")]
    assert conv.fan_in == 27.0
    assert conv.initializer == "GlorotUniform()"


@pytest.mark.parametrize("measured", [(True, True), (True, False), (False, True), (False,)])
def test_kernels_are_read_back_of_the_steps_at_which_they_were_measured(tmp_path, measured):
    """And of no other steps."""
    snapshots = [taken(i, kernels() if there else None) for i, there in enumerate(measured)]
    read = written_and_read(tmp_path, *snapshots)
    assert_same(read, snapshots)
    assert [snapshot.quantities.get("weight") is not None for snapshot in read] == [
        *measured
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_a_log_of_an_earlier_version_is_read(version):
    """A file that this version wrote, compared with what its monitor held."""
    folder = DATA / f"version_{version}"
    expected = np.load(folder / "expected.npz")
    known = len(expected["fields"])
    assert tuple(expected["fields"]) == records.FIELD_NAMES[:known]

    def assert_records(found, written):
        np.testing.assert_array_equal(found[:, :known], written)
        # All elements were counted before there were samples.
        counted, count = (records.field(found, name) for name in ("counted", "count"))
        np.testing.assert_array_equal(counted, count)

    read = read_recording(folder)
    assert read.steps == expected["steps"].tolist()
    assert [snapshot.steps for snapshot in read] == expected["merged"].tolist()
    assert read[0].names == tuple(expected["names"])
    # Version 1 did not hold the loss, and held the kernels once.
    losses = expected["losses"] if version > 1 else [np.nan] * len(read)
    kernels = expected["kernels"] if version > 1 else [expected["kernels"]]
    np.testing.assert_array_equal([snapshot.loss for snapshot in read], losses)
    for i, snapshot in enumerate(read):
        assert_records(snapshot.records(), expected["records"][i])
        histograms = snapshot.histograms["output"]
        np.testing.assert_array_equal(histograms, expected["histograms"][i])
        assert not snapshot.evaluation
        assert snapshot.activity is None  # it was not counted over steps
    with_kernels = [snapshot for snapshot in read if "weight" in snapshot.quantities]
    assert with_kernels == [*read][: len(kernels)]
    for snapshot, records_of_kernels in zip(with_kernels, kernels, strict=True):
        assert_records(snapshot.records("weight"), records_of_kernels)


def test_a_run_that_version_2_began_is_read_on(tmp_path):
    """Both files are in one folder and have the same tags."""
    for path in (DATA / "version_2" / log_format.RUN).iterdir():
        (tmp_path / log_format.RUN).mkdir()
        (tmp_path / log_format.RUN / path.name).write_bytes(path.read_bytes())
    before = read_recording(tmp_path)
    later = [dataclasses.replace(one, step=one.step + 10) for one in before]
    assert_same(written_and_read(tmp_path, *later), [*before, *later])


def test_gradients_updates_and_loss_are_read_back_bit_for_bit(tmp_path):
    """All quantities and both histograms, beside snapshots that have fewer, and a loss
    that is not finite."""
    snapshots = [whole(0), taken(1), whole(2), taken(3, kernels())]
    snapshots.append(dataclasses.replace(whole(5), loss=np.inf, histograms={}))
    read = written_and_read(tmp_path, *snapshots)
    assert_same(read, snapshots)
    for ours, theirs in zip(snapshots, read, strict=True):
        for name in ("quantities", "histograms"):
            for quantity, array in getattr(ours, name).items():
                assert getattr(theirs, name)[quantity].tobytes() == array.tobytes()
        assert np.float64(theirs.loss).tobytes() == np.float64(ours.loss).tobytes()


def test_the_log_of_a_training_has_its_gradients_updates_and_loss(run):
    """All that the monitor holds, and not of no layer."""
    folder, monitor = run
    read = read_recording(folder)
    assert_same(read, monitor.recording)
    for snapshot in read:
        assert snapshot.quantities.keys() == records.QUANTITIES.keys()
        assert {*snapshot.histograms} == COUNTED
        assert np.isfinite(snapshot.loss) and snapshot.loss > 0
        for of in records.QUANTITIES:
            assert np.nanmax(snapshot.statistic("rms", of)) > 0, of


HARD = np.array(
    [
        [np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308],
        [1 / 3, 2**53 - 1, 2**24 + 1, 1e-60, -1.0, np.float32(0.1)],
    ]
)


def test_numbers_are_compressed_without_loss():
    """All bits, for rows without columns and columns without rows as well."""
    rng = np.random.default_rng(0)
    for array in (HARD, HARD.T, HARD[:0], rng.standard_normal((200, 12)), HARD[::-1, 1:]):
        written = log_format.compressed(array)
        assert (written.dtype, written.ndim) == (np.uint8, 1)
        read = log_format.restored(written, array.shape[1])
        assert read.shape == array.shape and read.dtype == np.float64
        assert read.tobytes() == array.tobytes()
        assert read.flags.writeable and read.flags.c_contiguous


def test_what_is_not_compressed_numbers_is_refused():
    """In words, not as an error of the decompression."""
    written = log_format.compressed(HARD)
    for damaged, columns in ((written[:-6], 6), (written[3:], 6), (written, 7)):
        with pytest.raises(ValueError, match=f"in {columns} columns. Received: .. bytes"):
            log_format.restored(damaged, columns)


def test_columns_that_an_older_log_does_not_have_are_empty():
    """For example a log from before saturated elements and dead units were counted."""
    known = records.FIELD_NAMES[: records.FIELD_NAMES.index("saturated")]
    layers, written = taken(3).layers, taken(3).records()[:, : len(known)]
    old = {log_format.RECORDS_TAGS["output"]: written}
    table = log_format.Table(layers, known)
    read = log_format.decode(
        3, log_format.table_from_json(log_format.table_to_json(table)), old
    )
    expected = records.empty(2)
    expected[:, : len(known)] = taken(3).records()[:, : len(known)]
    records.field(expected, "counted")[:] = 15  # all elements, before there were samples
    np.testing.assert_array_equal(read.records(), expected)


def test_what_a_layer_did_not_have_in_an_older_log_has_its_default():
    """For example a log from before fan-in and initializer were recorded."""
    table = json.loads(log_format.table_to_json(log_format.encode(taken(3))[0]))
    for row in table["layers"]:
        del row["fan_in"], row["initializer"]
    read = log_format.table_from_json(json.dumps(table))
    assert {(layer.fan_in, layer.initializer) for layer in read.layers} == {(0.0, "")}


def test_a_log_of_a_later_version_is_refused(tmp_path, monkeypatch):
    """The message names the file, the format, and what to do."""
    with monkeypatch.context() as patched:
        patched.setattr(log_format, "VERSION", log_format.VERSION + 1)
        log = writer.EventLog(tmp_path)
        log.write(taken(0))
        log.close()
    newer = log_format.VERSION + 1
    expected = f"tfevents.*format {newer}. Install a newer activation-monitor to read it"
    with pytest.raises(ValueError, match=expected):
        read_recording(tmp_path)


def test_a_history_without_histograms_and_with_several_steps_is_read_back(tmp_path):
    """The optional parts of a snapshot."""
    x, y = models.data()
    model = models.perceptron()
    model.compile("sgd", "mse", steps_per_execution=2)
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path, histograms=False)
    read = read_recording(tmp_path)
    assert [(s.step, s.steps) for s in read] == [(0, 2), (2, 2), (4, 2)]
    assert_same(read, monitor.recording)
    assert read[0].histograms == {}


def test_the_histogram_is_what_tf_summary_writes_of_the_same_tensor(tmp_path):
    """Same elements and same metadata, read from both files by one reader. The copy for
    TensorBoard's tab has pairs of buckets as one."""
    x, y = models.data(samples=32)
    model = models.perceptron(depth=1)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    models.watch(model, x, y, batch_size=32, log_dir=tmp_path / "ours")
    order = np.argsort(x[:, 0])  # a histogram does not know the order of the samples
    hidden = keras.Model(model.inputs[0], model.layers[0].output)(x[order])
    tag = "~activations/001_net/hidden_0"
    writer = tf.summary.create_file_writer(str(tmp_path / "theirs"))
    with writer.as_default():
        tf.summary.histogram(tag, hidden, step=0)
    writer.close()
    ours, theirs = (
        accumulated(tmp_path / where) for where in ("ours/activations", "theirs")
    )
    expected = values(theirs, tag)[0]
    read = read_recording(tmp_path / "ours")[0].histogram("net/hidden_0").rows
    np.testing.assert_array_equal(read[:, 2], expected[:, 2])
    # The layer's output is computed again, in another function: float32 rounding.
    rounding = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(read[:, :2], expected[:, :2], **rounding)
    copy = values(ours, tag)[0]
    assert copy.dtype == np.float32
    np.testing.assert_array_equal(copy[:, 2], expected[::2, 2] + expected[1::2, 2])
    np.testing.assert_allclose(copy[:, 0], expected[::2, 0], **rounding)
    np.testing.assert_allclose(copy[:, 1], expected[1::2, 1], **rounding)
    metadata = [a.SummaryMetadata(tag) for a in (ours, theirs)]
    assert metadata[0].plugin_data == metadata[1].plugin_data
    assert metadata[0].data_class == metadata[1].data_class


def test_edges_that_float32_does_not_hold_stay_finite(tmp_path):
    """TensorBoard's card is empty if an edge is infinite. One value makes one bucket; a
    layer without counts has no histogram."""
    vectors = histogram.none(2)
    vectors[0, :3] = 1, -1e300, 1e300
    vectors[0, 3:] = 2.0
    written_and_read(
        tmp_path, dataclasses.replace(taken(0), histograms={"output": vectors})
    )
    found = accumulated(tmp_path / log_format.RUN)
    assert [*found.PluginTagToContent("histograms")] == ["~activations/000_a"]
    copy = values(found, "~activations/000_a")[0]
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(copy[[0, -1], [0, 1]], [-largest, largest])
    np.testing.assert_array_equal(copy[:, 2], 4.0)


def test_histograms_for_the_tab_are_written_ever_more_rarely():
    """All of 64, then 32 for each doubling: the first ones, and evenly within a doubling.
    TensorBoard keeps 100."""
    shown = [number for number in range(1024) if tabs.shows(number)]
    assert shown[:64] == [*range(64)]
    assert shown[64:96] == [*range(64, 128, 2)]
    assert shown[96:128] == [*range(128, 256, 4)]
    assert len(shown) == 64 + 4 * 32


def test_every_snapshot_has_its_histograms_whatever_the_tab_shows(tmp_path):
    """The copies are thinned, the recording is not."""
    vectors = histogram.none(2)
    vectors[:, :3], vectors[:, 3:] = (1, -1, 1), np.arange(30)
    snapshots = [
        dataclasses.replace(taken(step), histograms={"output": vectors})
        for step in range(70)
    ]
    assert_same(written_and_read(tmp_path, *snapshots), snapshots)
    copies = values(accumulated(tmp_path / log_format.RUN), "~activations/001_b")
    assert [*copies] == [*range(64), 64, 66, 68]


def test_a_sampled_histogram_is_labelled_as_such(run):
    """In the description that TensorBoard shows."""
    folder, monitor = run
    accumulator = accumulated(folder / "activations")

    def description(name):
        tag = of(monitor.recording[0].names, "activations", name)
        return accumulator.SummaryMetadata(tag).summary_description

    assert "here one element in 1." in description("head")
    wide = description("conv")
    assert wide == (
        "Up to 16384 elements are all counted. Larger tensors are sampled at equal "
        "distances, here one element in 1. The Activations tab has twice as many buckets."
    )


def test_the_stride_of_a_large_tensor_is_in_its_description(tmp_path):
    """One in five of 64 x 768 = 49152 elements: 2 and 3 divide the number of units, and 5
    is the first stride that leaves at most 16384."""
    x, y = models.data(samples=64, inputs=768)
    models.watch(models.perceptron(1, inputs=768), x, y, batch_size=64, log_dir=tmp_path)
    metadata = accumulated(tmp_path / "activations").SummaryMetadata(
        "~activations/000_net/hidden_0:input"
    )
    assert "here one element in 5." in metadata.summary_description


def test_the_log_is_readable_while_training_runs(tmp_path):
    """It is flushed at the end of each epoch."""
    seen = []

    class Reads(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                seen.append(read_recording(tmp_path).steps)

    x, y = models.data()
    model = models.perceptron()
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(tmp_path, sample_every=5)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[monitor, Reads()])
    assert seen == [[0, 1, 2], [0, 1, 2, 5]]


def test_a_second_fit_writes_a_second_file_of_the_same_run(tmp_path):
    """They are read as one recording."""
    x, y = models.data()
    model = models.perceptron()
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path)
    models.watch(model, x, y, monitor=monitor)
    assert len(list((tmp_path / "activations").iterdir())) == 2
    assert read_recording(tmp_path).steps == [0, 1, 2, 5]


def test_a_half_written_file_is_read_as_far_as_it_goes(run, tmp_path):
    """For example after a killed process, without a warning, because it is not damaged."""
    folder, monitor = run
    (path,) = (folder / "activations").iterdir()
    content = path.read_bytes()
    (tmp_path / path.name).write_bytes(content[: len(content) * 2 // 3])
    steps = read_recording(tmp_path).steps
    assert 0 < len(steps) < len(monitor.recording)
    assert steps == monitor.recording.steps[: len(steps)]


# -- damaged files


def logged(folder, *steps, layers=LAYERS, run=log_format.RUN):
    """The file of a log with these steps."""
    before = {*(folder / run).glob("*")}
    log = writer.EventLog(folder, run)
    for step in steps:
        log.write(dataclasses.replace(taken(step), layers=layers))
    log.close()
    (path,) = {*(folder / run).glob("*")} - before
    return path


def starts(path):
    """The starts of the records of an intact file. The first record holds no step."""
    content, found = path.read_bytes(), [0]
    while found[-1] < len(content):
        (length,) = struct.unpack_from("<Q", content, found[-1])
        found.append(found[-1] + 8 + 4 + length + 4)
    return found[:-1]


def flip(path, *places):
    """Damage one bit in each of these bytes."""
    content = bytearray(path.read_bytes())
    for place in places:
        content[place] ^= 1
    path.write_bytes(content)


def damaged_data(path, *found):
    """Damage the data of these records of a file; returns the start of the first."""
    begin = starts(path)
    flip(path, *(begin[record] + 100 for record in found))
    return begin[found[0]]


def read_with_warning(read, folder):
    """The recording, and the one warning."""
    with pytest.warns(UserWarning) as caught:
        found = read(folder)
    (warning,) = caught
    assert warning.filename == __file__
    return found, str(warning.message)


def test_a_damaged_record_is_left_out_and_all_others_are_read(tmp_path):
    """The warning names the file, the byte and the number of steps that were read."""
    path = logged(tmp_path, *range(6))
    at = damaged_data(path, 3)  # after the one that names the format, and steps 0 and 1
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0, 1, 3, 4, 5]
    assert_same(read, [taken(step) for step in read.steps])
    assert warning == (
        f"read_recording: {path} is damaged at byte {at}: 5 steps read. If it is a copy, "
        "copy it again."
    )


def test_several_damaged_records_are_counted(tmp_path):
    """The warning names the first of them."""
    path = logged(tmp_path, *range(6))
    at = damaged_data(path, 2, 4, 5)
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0, 2, 5]
    assert f"is damaged at byte {at} and 2 more places: 3 steps read." in warning


def test_after_a_damaged_length_no_more_is_read_of_the_file(tmp_path):
    """The start of the next record is unknown. The warning says so."""
    path = logged(tmp_path, *range(6))
    at = starts(path)[3]
    flip(path, at)
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0, 1]
    assert f"damaged at byte {at}: 2 steps read, none after byte {at}." in warning


def test_the_later_files_of_a_resumed_run_are_read(tmp_path):
    """Whatever the damage in an earlier file."""
    first = logged(tmp_path, *range(4))
    logged(tmp_path, *range(4, 7))
    flip(first, starts(first)[2])
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0, 4, 5, 6]
    assert f"{first} is damaged" in warning


def test_no_step_is_read_with_the_names_of_other_layers(tmp_path):
    """If the record with new layers is damaged, the steps after it are skipped until the
    next list of layers."""
    other = tuple(dataclasses.replace(one, name=f"other_{one.name}") for one in LAYERS)
    log = writer.EventLog(tmp_path)
    for step, layers in enumerate([LAYERS, LAYERS, other, other, LAYERS, LAYERS]):
        log.write(dataclasses.replace(taken(step), layers=layers))
    log.close()
    (path,) = (tmp_path / log_format.RUN).iterdir()
    begin = starts(path)
    flip(path, begin[4] - 10)  # at the end of the data: the names themselves are intact
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0, 1, 4, 5]
    assert {snapshot.names for snapshot in read} == {("a", "b")}
    assert "4 steps read, 1 skipped because the list of layers is damaged" in warning


def test_a_record_that_is_no_event_is_damaged(tmp_path):
    """Its checksum is correct, but its content is not an event."""
    path = logged(tmp_path, 0)
    with path.open("ab") as file:
        RecordWriter(file).write(b"\xff\xff no event")
    size = starts(path)[-1]
    read, warning = read_with_warning(read_recording, tmp_path)
    assert read.steps == [0]
    assert f"damaged at byte {size}: 1 step read." in warning


def test_a_file_of_which_nothing_can_be_read_is_an_error_that_says_so(tmp_path):
    """The message does not say that there are no snapshots, because there are."""
    path = logged(tmp_path, 0, 1)
    at = damaged_data(path, 1)
    for read in (read_recording, read_runs):
        with pytest.raises(ValueError, match="no step in") as caught:
            read(tmp_path)
        assert f"{path} is damaged at byte {at}: 0 steps read" in str(caught.value)


def test_a_damaged_run_is_no_hindrance_to_the_others(tmp_path):
    """There is one warning for each damaged file, and everything readable is read."""
    logged(tmp_path / "fine", *range(3))
    bad = logged(tmp_path / "bad", *range(3))
    at = damaged_data(bad, 2)
    runs, warning = read_with_warning(read_runs, tmp_path)
    assert {name: run.steps for name, run in runs.items()} == {
        "bad": [0, 2],
        "fine": [0, 1, 2],
    }
    assert warning.startswith(f"read_runs: {bad} is damaged at byte {at}: 2 steps read")


def test_a_damaged_evaluation_is_not_told_of_by_a_report_of_training(tmp_path):
    """`read_runs` does not read runs of evaluation; `read_recording` does."""
    logged(tmp_path, *range(3))
    damaged_data(logged(tmp_path, *range(3), run=log_format.VALIDATION_RUN), 2)
    assert read_runs(tmp_path)[tmp_path.name].steps == [0, 1, 2]
    read, _ = read_with_warning(read_recording, tmp_path / log_format.VALIDATION_RUN)
    assert read.steps == [0, 2]


def test_reading_a_log_loads_neither_tensorflow_nor_keras(tmp_path):
    """Loading them would take longer than reading."""
    logged(tmp_path, 0)
    code = (
        "import sys; from activation_monitor.storage.reader import read_recording; "
        f"print(read_recording({str(tmp_path)!r}).steps, *sys.modules)"
    )
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("[0]")
    assert {"tensorflow", "keras"}.isdisjoint(printed.split())


# -- folders without a run


def keras_log(folder):
    """A log of the TensorBoard callback of Keras."""
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse")
    board = keras.callbacks.TensorBoard(folder)
    model.fit(*models.data(), verbose=0, callbacks=[board])
    assert [path.name for path in folder.iterdir()] == ["train"]


def several_runs(folder):
    logged(folder / "one", 0)
    logged(folder / "two", 0)


NOTHING = {
    "missing": (lambda folder: folder.rmdir(), "which does not exist"),
    "empty": (lambda folder: None, "which is empty"),
    "of other files": (
        lambda folder: (folder / "notes.txt").write_text("x"),
        "with no event file in it",
    ),
    "of other writers": (
        keras_log,
        "with event files of other writers only, in train",
    ),
    "without a step": (
        lambda folder: writer.EventLog(folder).close(),
        "whose log has no sampled step yet",
    ),
    "of evaluation": (
        lambda folder: logged(folder, 0, run=log_format.VALIDATION_RUN),
        "with a run of evaluation only, none of training. In Python, `read_recording(",
    ),
    "a file": (
        lambda folder: (folder.rmdir(), folder.write_text("x")),
        "which is a file. Pass the folder that contains it: ",
    ),
}


@pytest.mark.parametrize("read", [read_recording, read_runs])
@pytest.mark.parametrize("kind", [*NOTHING])
def test_a_folder_without_a_run_is_an_error_that_says_what_is_there(tmp_path, kind, read):
    """Each message says where, what was expected, what was received, and what to do."""
    make, expected = NOTHING[kind]
    folder = tmp_path / "logs"
    folder.mkdir()
    make(folder)
    error = NotADirectoryError if kind == "a file" else FileNotFoundError
    with pytest.raises(error) as caught:
        read(folder)
    message = str(caught.value)
    assert message.startswith(f"{read.__name__}: ")
    assert "xpected the log folder of an ActivationMonitor. Received: " in message
    assert f"{folder}, {expected}" in message


def test_the_messages_for_folders_without_a_run_differ():
    """So the test above cannot pass with one message for all cases."""
    told = [expected for _, expected in NOTHING.values()]
    assert len({*told}) == len(told) == 7


def test_an_event_file_is_not_a_folder(tmp_path):
    """The message names the folder to pass instead, which can be read."""
    path = logged(tmp_path, 0)
    with pytest.raises(NotADirectoryError, match="is a file. Pass the folder") as caught:
        read_recording(path)
    assert str(caught.value).endswith(f"contains it: {path.parent}")
    assert read_recording(path.parent).steps == [0]


def test_a_folder_of_several_runs_gives_a_recording_for_each(tmp_path):
    """`read_recording` reads all of them; `read_run`, which reads one, names them."""
    several_runs(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    assert read_recording(tmp_path).keys() == {"one", "two"}
    assert read_recording(tmp_path)["one"].steps == read_recording(one).steps
    expected = f"with runs in the folders inside it. Pass one of them: {one}, {two}."
    with pytest.raises(FileNotFoundError, match=re.escape(expected)):
        read_run(tmp_path)


def test_a_run_of_evaluation_is_read_from_its_own_folder(tmp_path):
    """As the message says."""
    logged(tmp_path, 0, run=log_format.VALIDATION_RUN)
    with pytest.raises(FileNotFoundError) as caught:
        read_recording(tmp_path)
    (folder,) = re.findall(r"`read_recording\('(.*?)'\)` reads it", str(caught.value))
    assert read_recording(folder).steps == [0]


def test_a_folder_whose_name_is_like_an_event_file_is_passed_over(tmp_path):
    """Only files are read."""
    logged(tmp_path, 0)
    (tmp_path / log_format.RUN / "my.tfevents.d").mkdir()
    (tmp_path / "tfevents").mkdir()
    assert read_recording(tmp_path).steps == [0]
    assert [*read_runs(tmp_path)] == [tmp_path.name]


def test_a_log_without_its_list_of_layers_is_an_error_that_names_the_file(
    tmp_path, monkeypatch
):
    """For example a file of another program, which is not damaged."""
    monkeypatch.setattr(log_format, "table_to_json", lambda table: "{}")
    path = logged(tmp_path, 0)
    expected = f"{re.escape(str(path))}: its list of layers cannot be read"
    with pytest.raises(ValueError, match=expected):
        read_recording(tmp_path)


def test_the_findings_are_written_as_text(tmp_path):
    """For the Text tab: the verdict of the first step, and the last one at the end."""
    x, y = models.data()
    model = models.perceptron(10, initializer=keras.initializers.RandomNormal(stddev=3.0))
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path)
    texts = values(accumulated(tmp_path / "activations"), "activation_monitor/findings")
    (finding,) = monitor.diagnosis.findings
    for text in texts.values():
        written = text.item().decode()
        assert (
            finding.code in written and finding.message.split(" At step 1 ")[0] in written
        )
        assert f"```python\n{finding.fix.changes[0].line}\n```" in written
    steps = monitor.diagnosis.steps
    assert [*texts][0] == 0 and [*texts][-1] == steps[-1] > 0
    assert f"{len(steps)} steps sampled, up to step {steps[-1]}" in written
    assert finding.title in written and finding.message in written
    assert "and up to step" in finding.title
    assert "At step 1 it has led to" in finding.message


def test_writing_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """The training thread only queues the event, so a slow disk does not delay it."""
    framed = event_file.framed
    waited = []

    def slow(data):
        time.sleep(0.2)
        waited.append(time.perf_counter())
        return framed(data)

    monkeypatch.setattr(event_file, "framed", slow)
    x, y = models.data()
    model = models.perceptron(depth=1)
    model.compile("sgd", "mse")
    handed = []

    class Notes(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            handed.append(time.perf_counter())

    monitor = ActivationMonitor(tmp_path, sample_every=1)
    model.fit(x, y, batch_size=8, verbose=0, callbacks=[Notes(), monitor])
    assert handed[-1] < waited[-1]
    assert len(read_recording(tmp_path)) == 5
