"""The event file: what TensorBoard's own readers find in it, and reading it back."""

import dataclasses
import json
import re
import struct
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util import tensor_util

import models
from activation_monitor import ActivationMonitor, diagnose, read_history
from activation_monitor.analysis import moments
from activation_monitor.analysis.snapshot import LayerInfo, Snapshot
from activation_monitor.views import events, log_format
from activation_monitor.views.events import read_runs
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
    """As a killed process leaves it; without a warning, for it is not damaged."""
    folder, monitor = run
    (path,) = (folder / "activations").iterdir()
    content = path.read_bytes()
    (tmp_path / path.name).write_bytes(content[: len(content) * 2 // 3])
    steps = read_history(tmp_path).steps
    assert 0 < len(steps) < len(monitor.history)
    assert steps == monitor.history.steps[: len(steps)]


# -- damaged files


def logged(folder, *steps, layers=LAYERS, run=events.RUN):
    """The file of a log of these steps."""
    before = {*(folder / run).glob("*")}
    log = events.EventLog(folder, run)
    for step in steps:
        log.write(dataclasses.replace(taken(step), layers=layers))
    log.close()
    (path,) = {*(folder / run).glob("*")} - before
    return path


def starts(path):
    """Where the records of an intact file begin; the first holds no step."""
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


def damaged_data(path, *records):
    """Damage the data of these records of a file; returns where the first begins."""
    begin = starts(path)
    flip(path, *(begin[record] + 100 for record in records))
    return begin[records[0]]


def read_with_warning(read, folder):
    """What is read, and the one warning that comes with it."""
    with pytest.warns(UserWarning) as caught:
        found = read(folder)
    (warning,) = caught
    assert warning.filename == __file__
    return found, str(warning.message)


def test_a_damaged_record_is_left_out_and_all_others_are_read(tmp_path):
    """The warning says which file, at which byte, and how many steps were read."""
    path = logged(tmp_path, *range(6))
    at = damaged_data(path, 3)  # after the one that names the format, and steps 0 and 1
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0, 1, 3, 4, 5]
    assert_same(read, [taken(step) for step in read.steps])
    assert warning == (
        f"read_history: {path} is damaged at byte {at}: 5 steps read. If it is a copy, "
        "copy it again."
    )


def test_several_damaged_records_are_counted(tmp_path):
    """The first of them is named."""
    path = logged(tmp_path, *range(6))
    at = damaged_data(path, 2, 4, 5)
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0, 2, 5]
    assert f"is damaged at byte {at} and 2 more places: 3 steps read." in warning


def test_after_a_damaged_length_no_more_is_read_of_the_file(tmp_path):
    """Where the next record begins is not known; the warning says so."""
    path = logged(tmp_path, *range(6))
    at = starts(path)[3]
    flip(path, at)
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0, 1]
    assert f"damaged at byte {at}: 2 steps read, none after byte {at}." in warning


def test_the_later_files_of_a_resumed_run_are_read(tmp_path):
    """Whatever the damage in an earlier one."""
    first = logged(tmp_path, *range(4))
    logged(tmp_path, *range(4, 7))
    flip(first, starts(first)[2])
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0, 4, 5, 6]
    assert f"{first} is damaged" in warning


def test_no_step_is_read_with_the_names_of_other_layers(tmp_path):
    """Where the record that told of new layers is damaged, the steps after it are left
    out, up to the next that tells of layers."""
    other = tuple(dataclasses.replace(one, name=f"other_{one.name}") for one in LAYERS)
    log = events.EventLog(tmp_path)
    for step, layers in enumerate([LAYERS, LAYERS, other, other, LAYERS, LAYERS]):
        log.write(dataclasses.replace(taken(step), layers=layers))
    log.close()
    (path,) = (tmp_path / events.RUN).iterdir()
    begin = starts(path)
    flip(path, begin[4] - 10)  # at the end of the data: the names themselves are intact
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0, 1, 4, 5]
    assert {snapshot.names for snapshot in read} == {("a", "b")}
    assert "4 steps read, 1 left out, whose list of layers is in the damaged" in warning


def test_a_record_that_is_no_event_is_damaged(tmp_path):
    """Its checksum is right, what is in it is not."""
    path = logged(tmp_path, 0)
    with path.open("ab") as file:
        RecordWriter(file).write(b"\xff\xff no event")
    size = starts(path)[-1]
    read, warning = read_with_warning(read_history, tmp_path)
    assert read.steps == [0]
    assert f"damaged at byte {size}: 1 step read." in warning


def test_a_file_of_which_nothing_can_be_read_is_an_error_that_says_so(tmp_path):
    """Not that there are no snapshots: there are."""
    path = logged(tmp_path, 0, 1)
    at = damaged_data(path, 1)
    for read in (read_history, read_runs):
        with pytest.raises(ValueError, match="no step in") as caught:
            read(tmp_path)
        assert f"{path} is damaged at byte {at}: 0 steps read" in str(caught.value)


def test_a_damaged_run_is_no_hindrance_to_the_others(tmp_path):
    """One warning for each file that is damaged; what can be read is there."""
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
    """Runs of evaluation are not read by `read_runs`; by `read_history` they are."""
    logged(tmp_path, *range(3))
    damaged_data(logged(tmp_path, *range(3), run=events.VALIDATION_RUN), 2)
    assert read_runs(tmp_path)[tmp_path.name].steps == [0, 1, 2]
    read, _ = read_with_warning(read_history, tmp_path / events.VALIDATION_RUN)
    assert read.steps == [0, 2]


def test_reading_a_log_loads_neither_tensorflow_nor_keras(tmp_path):
    """Which takes longer than reading it."""
    logged(tmp_path, 0)
    code = (
        "import sys; from activation_monitor.views.events import read_history; "
        f"print(read_history({str(tmp_path)!r}).steps, *sys.modules)"
    )
    run = [sys.executable, "-c", code]
    printed = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("[0]")
    assert {"tensorflow", "keras"}.isdisjoint(printed.split())


# -- folders without a run


def keras_log(folder):
    """What Keras' own TensorBoard callback writes."""
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
        "with no event file in it or below it",
    ),
    "of other writers": (
        keras_log,
        "with event files of other writers only, in train",
    ),
    "without a step": (
        lambda folder: events.EventLog(folder).close(),
        "whose log has no sampled step yet",
    ),
    "of evaluation": (
        lambda folder: logged(folder, 0, run=events.VALIDATION_RUN),
        "with a run of evaluation only, none of training. In Python, `read_history(",
    ),
    "a file": (
        lambda folder: (folder.rmdir(), folder.write_text("x")),
        "which is a file. Give the folder that it is in: ",
    ),
}


@pytest.mark.parametrize("read", [read_history, read_runs])
@pytest.mark.parametrize("kind", [*NOTHING])
def test_a_folder_without_a_run_is_an_error_that_says_what_is_there(tmp_path, kind, read):
    """Where, what was expected, what came, and what to do, in a message of its own."""
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
    """Each says what is there: the test above cannot pass by one message for all."""
    told = [expected for _, expected in NOTHING.values()]
    assert len({*told}) == len(told) == 7


def test_an_event_file_is_not_a_folder(tmp_path):
    """The message names the folder to give instead, which can be read."""
    path = logged(tmp_path, 0)
    with pytest.raises(NotADirectoryError, match="is a file. Give the folder") as caught:
        read_history(path)
    assert str(caught.value).endswith(f"it is in: {path.parent}")
    assert read_history(path.parent).steps == [0]


def test_a_folder_of_several_runs_names_them(tmp_path):
    """`read_history` reads one run: it says which there are; `read_runs` reads all."""
    several_runs(tmp_path)
    one, two = tmp_path / "one", tmp_path / "two"
    expected = f"with runs in the folders below it. Give one of them: {one}, {two}."
    with pytest.raises(FileNotFoundError, match=re.escape(expected)):
        read_history(tmp_path)
    assert [*read_runs(tmp_path)] == ["one", "two"]


def test_a_run_of_evaluation_is_read_from_its_own_folder(tmp_path):
    """As the message says."""
    logged(tmp_path, 0, run=events.VALIDATION_RUN)
    with pytest.raises(FileNotFoundError) as caught:
        read_history(tmp_path)
    (folder,) = re.findall(r"`read_history\('(.*?)'\)` reads it", str(caught.value))
    assert read_history(folder).steps == [0]


def test_a_folder_whose_name_is_like_an_event_file_is_passed_over(tmp_path):
    """Only files are read."""
    logged(tmp_path, 0)
    (tmp_path / events.RUN / "my.tfevents.d").mkdir()
    (tmp_path / "tfevents").mkdir()
    assert read_history(tmp_path).steps == [0]
    assert [*read_runs(tmp_path)] == [tmp_path.name]


def test_a_log_without_its_list_of_layers_is_an_error_that_names_the_file(
    tmp_path, monkeypatch
):
    """As another program may have written it: nothing is damaged."""
    monkeypatch.setattr(log_format, "table_to_json", lambda table: "{}")
    path = logged(tmp_path, 0)
    expected = f"{re.escape(str(path))}: its list of layers cannot be read"
    with pytest.raises(ValueError, match=expected):
        read_history(tmp_path)


def test_the_findings_are_written_as_text(tmp_path):
    """For the Text tab: the verdict of the first step, and the last one at the end."""
    x, y = models.data()
    model = models.perceptron(10, initializer=keras.initializers.RandomNormal(stddev=3.0))
    monitor, _ = models.watch(model, x, y, log_dir=tmp_path)
    texts = values(accumulated(tmp_path / "activations"), "activation_monitor/findings")
    (finding,) = monitor.diagnosis.findings
    for text in texts.values():
        written = text.item().decode()
        assert finding.code in written
        assert finding.message.partition(" At step 1 ")[0] in written
        assert f"```python\n{finding.remedy.changes[0].line}\n```" in written
    steps = monitor.diagnosis.steps
    assert [*texts][0] == 0 and [*texts][-1] == steps[-1] > 0
    assert f"{len(steps)} steps sampled, up to step {steps[-1]}" in written
    assert finding.title in written and finding.message in written
    assert "up to step 2" in finding.title and "At step 1 it has led to" in finding.message


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
