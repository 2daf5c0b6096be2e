"""The event file: what TensorBoard's own readers find in it, and reading it back."""

import json
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import models
from activation_monitor import ActivationMonitor, diagnose, read_history
from activation_monitor.analysis import moments
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.views import events, log_format
from activation_monitor.views.figures.image import heat_image


def accumulated(folder):
    """All that TensorBoard's Python reader finds in a run folder."""
    accumulator = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    accumulator.Reload()
    return accumulator


def values(accumulator, tag):
    return {
        event.step: tensor_util.make_ndarray(event.tensor_proto)
        for event in accumulator.Tensors(tag)
    }


LAYERS = (
    LayerInfo("a", "InputLayer", "input", "linear", 3, "float32", ()),
    LayerInfo(
        *("b", "Conv2D", "weight", "tanh", 4, "float32", (0,)),
        fan_in=8.5,
        initializer="HeNormal()",
    ),
)


def taken(step, kernels=None):
    """A snapshot of two layers, the second of them with a kernel."""
    rng = np.random.default_rng(step)
    records = [moments.measure(rng.standard_normal((5, 3)), "tanh") for _ in LAYERS]
    return Snapshot(step, LAYERS, np.stack(records), kernels=kernels)


def kernels():
    """Their records: an empty one, and one of numbers that float32 has not."""
    return np.stack([moments.empty(), moments.measure(np.full((2, 3), 1e-60) / 3)])


def written_and_read(folder, *snapshots):
    """What is read back of snapshots."""
    log = events.EventLog(folder)
    for snapshot in snapshots:
        log.write(snapshot)
    log.close()
    return read_history(folder)


def assert_same(read, written):
    """All that is in a snapshot, to the last bit."""
    for ours, theirs in zip(written, read, strict=True):
        assert theirs.step == ours.step
        assert theirs.layers == ours.layers
        assert theirs.steps == ours.steps
        for name in ("records", "histograms", "kernels"):
            before, after = getattr(ours, name), getattr(theirs, name)
            assert (before is None) == (after is None), name
            if before is not None:
                np.testing.assert_array_equal(after, before, err_msg=name)


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


def test_every_tensor_has_two_scalars_and_a_histogram(run):
    """Under the tags that the README names, shown by the plugins they are meant for."""
    folder, monitor = run
    names = monitor.history[0].names
    assert len(names) == 9
    accumulator = accumulated(folder / "activations")
    plugins = {
        "scalars": {f"activation_{s}/{name}" for s in ("mean", "std") for name in names},
        "histograms": {f"activations/{name}" for name in names},
        "text": {"activation_monitor/findings"},
        "images": {"activation_monitor/depth_by_step"},
        "activation_monitor": {
            f"activation_monitor/{own}" for own in ("snapshot", "kernels", "layers")
        },
    }
    for plugin, tags in plugins.items():
        assert set(accumulator.PluginTagToContent(plugin)) == tags
    assert set(accumulator.Tags()["tensors"]) == set().union(*plugins.values())


def test_the_scalars_are_the_statistics(run):
    """Mean and std of each layer at each sampled step, rank 0 as TensorBoard wants them."""
    folder, monitor = run
    accumulator = accumulated(folder / "activations")
    assert monitor.history.steps == [0, 1, 2, 3, 5, 6]
    for tag, field, finish in (("mean", "mean", lambda v: v), ("std", "variance", np.sqrt)):
        for name in ("conv", "head"):
            written = values(accumulator, f"activation_{tag}/{name}")
            for snapshot in monitor.history:
                record = snapshot.records[snapshot.names.index(name)]
                assert written[snapshot.step].shape == ()
                expected = finish(moments.field(record, field))
                np.testing.assert_allclose(written[snapshot.step], expected, rtol=1e-6)


def test_a_picture_of_all_layers_and_steps_ends_the_log(run):
    """Of the last step; as TensorFlow decodes it, a row of pixels for each layer."""
    folder, monitor = run
    written = values(
        accumulated(folder / "activations"), "activation_monitor/depth_by_step"
    )
    ((step, (width, height, png)),) = written.items()
    assert step == monitor.history.steps[-1]
    pixels = tf.io.decode_png(png).numpy()
    assert pixels.shape == (int(height), int(width), 3)
    np.testing.assert_array_equal(pixels, heat_image(monitor.history))
    assert pixels.shape[0] % len(monitor.history[0].names) == 0
    assert pixels.shape[1] % len(monitor.history) == 0


def test_scalars_can_be_switched_off(tmp_path):
    """All the rest is there, and it is read back the same."""
    monitor, _ = models.watch(
        models.perceptron(), *models.data(), log_dir=tmp_path, scalars=False
    )
    accumulator = accumulated(tmp_path / "activations")
    with pytest.raises(KeyError):
        accumulator.PluginTagToContent("scalars")
    for plugin in ("histograms", "text", "images", "activation_monitor"):
        assert accumulator.PluginTagToContent(plugin)
    assert_same(read_history(tmp_path), monitor.history)


def test_a_picture_that_fails_does_not_end_the_log(tmp_path, monkeypatch):
    """It warns, and all that was measured is there."""

    def fails(history):
        raise OSError("no paint")

    monkeypatch.setattr("activation_monitor.views.figures.image.heat_image", fails)
    monitor, warned = models.watch(models.perceptron(), *models.data(), log_dir=tmp_path)
    (message,) = warned
    assert "the log has no picture, training goes on (OSError: no paint)" in message
    assert_same(read_history(tmp_path), monitor.history)


def test_history_is_read_back_without_loss(run):
    """Every number, every layer, every histogram; and it is judged the same."""
    folder, monitor = run
    for where in (folder, folder / "activations"):
        read = read_history(where)
        assert_same(read, monitor.history)
        assert str(diagnose(read)) == str(monitor.diagnosis)
    assert read[0].kernels is not None
    conv = read[0].layers[read[0].names.index("conv")]
    assert conv.fan_in == 27.0
    assert conv.initializer == "GlorotUniform()"


@pytest.mark.parametrize("measured", [(True, True), (True, False), (False, True), (False,)])
def test_kernels_are_read_back_of_the_steps_at_which_they_were_measured(tmp_path, measured):
    """And of no others, whatever came before."""
    snapshots = [taken(i, kernels() if there else None) for i, there in enumerate(measured)]
    read = written_and_read(tmp_path, *snapshots)
    assert_same(read, snapshots)
    assert [snapshot.kernels is not None for snapshot in read] == [*measured]


def test_a_log_of_a_version_with_fewer_columns_has_empty_ones_in_their_place(
    tmp_path, monkeypatch
):
    """As one written before there were saturated elements, dead units and kernels."""
    new = taken(3)
    known = moments.FIELD_NAMES[: moments.FIELD_NAMES.index("saturated")]
    old = Snapshot(3, new.layers, new.records[:, : len(known)])

    def without_what_is_new(written):
        table = json.loads(in_full(written))
        for row in table["layers"]:
            del row["fan_in"], row["initializer"]
        return json.dumps(table)

    in_full = log_format.table_to_json
    with monkeypatch.context() as patched:
        patched.setattr(moments, "FIELD_NAMES", known)
        patched.setattr(log_format, "table_to_json", without_what_is_new)
        log = events.EventLog(tmp_path)
        log.write(old)
        log.close()
    (read,) = read_history(tmp_path)
    assert read.kernels is None
    assert [layer.name for layer in read.layers] == ["a", "b"]
    assert {(layer.fan_in, layer.initializer) for layer in read.layers} == {(0.0, "")}
    expected = moments.empty(2)
    expected[:, : len(known)] = old.records
    np.testing.assert_array_equal(read.records, expected)


def test_a_log_of_a_later_version_is_refused(tmp_path, monkeypatch):
    """It says which file, which format, and what to do; nothing is guessed."""
    with monkeypatch.context() as patched:
        patched.setattr(log_format, "VERSION", log_format.VERSION + 1)
        log = events.EventLog(tmp_path)
        log.write(taken(0))
        log.close()
    expected = "tfevents.*one of format 2. Install a newer activation-monitor to read it"
    with pytest.raises(ValueError, match=expected):
        read_history(tmp_path)


def test_a_history_without_histograms_and_with_several_steps_is_read_back(tmp_path):
    """The other shape of the same."""
    x, y = models.data()
    model = models.perceptron()
    model.compile("sgd", "mse", steps_per_execution=2)
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path, histograms=False)
    read = read_history(tmp_path)
    assert [(s.step, s.steps) for s in read] == [(0, 2), (2, 2), (4, 2)]
    assert_same(read, monitor.history)
    assert read[0].histograms is None


def test_the_histogram_is_what_tf_summary_writes_of_the_same_tensor(tmp_path):
    """Element by element and as metadata, read by the same reader from both files."""
    x, y = models.data(samples=32)
    model = models.perceptron(depth=1)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    models.watch(model, x, y, batch_size=32, log_dir=tmp_path / "ours")
    order = np.argsort(x[:, 0])  # a histogram does not know the order of the samples
    hidden = keras.Model(model.inputs[0], model.layers[0].output)(x[order])
    writer = tf.summary.create_file_writer(str(tmp_path / "theirs"))
    with writer.as_default():
        tf.summary.histogram("activations/net/hidden_0", hidden, step=0)
    writer.close()
    tag = "activations/net/hidden_0"
    ours, theirs = (
        accumulated(tmp_path / where) for where in ("ours/activations", "theirs")
    )
    expected = values(theirs, tag)[0]
    written = values(ours, tag)[0]
    assert written.dtype == expected.dtype
    np.testing.assert_array_equal(written[:, 2], expected[:, 2])
    # The layer's output is computed again, in another function: float32 rounding.
    np.testing.assert_allclose(written[:, :2], expected[:, :2], rtol=1e-5, atol=1e-6)
    metadata = [a.SummaryMetadata(tag) for a in (ours, theirs)]
    assert metadata[0].plugin_data == metadata[1].plugin_data
    assert metadata[0].data_class == metadata[1].data_class


def test_a_sampled_histogram_is_labelled_as_such(run):
    """In the description that TensorBoard shows beside it."""
    folder, _ = run
    accumulator = accumulated(folder / "activations")

    def description(tag):
        return accumulator.SummaryMetadata(tag).summary_description

    assert "here one in 1." in description("activations/head")
    wide = description("activations/conv")
    assert wide == (
        "Of at most 16384 elements all are counted; of more an evenly strided sample, "
        "here one in 1."
    )


def test_the_stride_of_a_large_tensor_is_in_its_description(tmp_path):
    """One in five of 64 x 768 = 49152 elements: 2 and 3 divide the number of units, and
    one in five is the first that leaves at most 16384."""
    x, y = models.data(samples=64, inputs=768)
    models.watch(models.perceptron(1, inputs=768), x, y, batch_size=64, log_dir=tmp_path)
    metadata = accumulated(tmp_path / "activations").SummaryMetadata(
        "activations/net/hidden_0:input"
    )
    assert metadata.summary_description.endswith("here one in 5.")


def test_the_log_is_readable_while_training_runs(tmp_path):
    """It is flushed at the end of each epoch."""
    seen = []

    class Reads(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                seen.append(read_history(tmp_path).steps)

    x, y = models.data()
    model = models.perceptron()
    model.compile("sgd", "mse")
    monitor = ActivationMonitor(tmp_path, sample_every=5)
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[monitor, Reads()])
    assert seen == [[0, 1, 2], [0, 1, 2, 5]]


def test_a_second_fit_writes_a_second_file_of_the_same_run(tmp_path):
    """Read together as one history."""
    x, y = models.data()
    model = models.perceptron()
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path)
    models.watch(model, x, y, monitor=monitor)
    assert len(list((tmp_path / "activations").iterdir())) == 2
    assert read_history(tmp_path).steps == [0, 1, 2, 5]


def test_a_half_written_file_is_read_as_far_as_it_goes(run, tmp_path):
    """As a killed process leaves it."""
    folder, monitor = run
    (path,) = (folder / "activations").iterdir()
    content = path.read_bytes()
    (tmp_path / path.name).write_bytes(content[: len(content) * 2 // 3])
    steps = read_history(tmp_path).steps
    assert 0 < len(steps) < len(monitor.history)
    assert steps == monitor.history.steps[: len(steps)]


def test_a_folder_without_a_log_is_an_error(tmp_path):
    """It says which folder, and what was expected there."""
    with pytest.raises(FileNotFoundError, match="Expected a log folder that an"):
        read_history(tmp_path)


def test_the_findings_are_written_as_text(tmp_path):
    """For the Text tab: the verdict of the first step, here a sick one."""
    x, y = models.data()
    model = models.perceptron(10, initializer=keras.initializers.RandomNormal(stddev=3.0))
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path)
    (text,) = values(
        accumulated(tmp_path / "activations"), "activation_monitor/findings"
    ).values()
    (finding,) = monitor.diagnosis.findings
    written = text.item().decode()
    assert finding.title in written and finding.message in written
    assert f"```python\n{finding.remedy.changes[0].line}\n```" in written


def test_writing_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """The training thread hands the event over; a slow disk costs it nothing."""
    from tensorboard.summary.writer import record_writer

    slow = record_writer.RecordWriter.write
    waited = []

    def write(self, data):
        time.sleep(0.2)
        waited.append(time.perf_counter())
        slow(self, data)

    monkeypatch.setattr(record_writer.RecordWriter, "write", write)
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
    assert len(read_history(tmp_path)) == 5
