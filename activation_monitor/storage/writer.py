"""Writes snapshots to a TensorBoard event file.

All data of one step are one event. The file is in its own run folder (`RUN` inside the log
folder), which no other writer may share: TensorBoard's Python reader follows only the
newest file of a folder. In addition to the tags of `log_format`, the file has

* `activation_mean/<layer>`, `activation_std/<layer>`: scalars, with `scalars=True`;
* `activations/<layer>`: histograms;
* `activation_monitor/findings`: the diagnosis as Markdown, at each change;
* `activation_monitor/depth_by_step`: an image of all layers at all steps, at the end.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.scalar import metadata as scalar_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util import tensor_util

from activation_monitor.analysis import histogram, records
from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.storage import log_format
from activation_monitor.storage.plugin_name import PLUGIN

# protobuf creates the classes when the module is imported. Type checkers do not see them.
_EVENTS: Any = event_pb2
_SUMMARIES: Any = summary_pb2

_SAMPLED = (
    f"Up to {histogram.EXACT_UP_TO} elements are all counted. Larger tensors are sampled "
    "at equal distances, here one element in {stride}."
)


class EventLog:
    """Writes snapshots in a background thread.

    Args:
        log_dir: The log folder. The run folder is created in it.
        run: Name of the run folder. Defaults to `log_format.RUN`.
        scalars: Whether to write mean and std of each layer as scalars, for TensorBoard's
            Scalars tab, which shows two cards for each layer. Defaults to `True`.

    Raises:
        OSError, tensorflow.errors.OpError: If the folder cannot be written to. The next
            call raises an error that occurs later, in the background thread.
    """

    def __init__(
        self, log_dir: str | Path, run: str = log_format.RUN, scalars: bool = True
    ):
        self._scalars = scalars
        self.run_dir = Path(log_dir) / run
        self._writer = EventFileWriter(str(self.run_dir), max_queue_size=100, flush_secs=10)
        self._tags = set()
        self._table = None

    def write(self, snapshot: Snapshot, findings: str | None = None) -> None:
        """Write all data of one step.

        Args:
            snapshot: The measurements of the step.
            findings: The diagnosis as Markdown, if it has changed. Defaults to `None`.
        """
        summary = _SUMMARIES.Summary()
        table, arrays = log_format.encode(snapshot)
        if table != self._table:
            self._table = table
            text = log_format.table_to_json(table)
            self._add(summary, log_format.LAYERS_TAG, text, _own_metadata())
        for tag, array in arrays.items():
            self._add(summary, tag, array, _own_metadata())
        for statistic in ("mean", "std") if self._scalars else ():
            metadata = scalar_metadata.create_summary_metadata("", "")
            values = snapshot.statistic(statistic).astype(np.float32)
            for name, value in zip(snapshot.names, values, strict=True):
                self._add(summary, f"activation_{statistic}/{name}", value, metadata)
        self._add_histograms(summary, snapshot)
        if findings is not None:
            self._add_findings(summary, findings)
        self._write(snapshot.step, summary)

    def write_verdict(self, step: int, findings: str) -> None:
        """Write only the diagnosis.

        Args:
            step: The last step that it covers.
            findings: The diagnosis as Markdown.
        """
        summary = _SUMMARIES.Summary()
        self._add_findings(summary, findings)
        self._write(step, summary)

    def write_image(self, step: int, png: bytes, size: tuple[int, int], about: str) -> None:
        """Write an image for TensorBoard's Images tab.

        Args:
            step: The last step that the image shows.
            png: The content of a PNG file.
            size: Width and height in pixels.
            about: The description of the image.
        """
        summary = _SUMMARIES.Summary()
        # An array of NumPy's byte strings would lose trailing zeros.
        content = np.array([b"%d" % size[0], b"%d" % size[1], png], object)
        metadata = image_metadata.create_summary_metadata("", "")
        self._add(summary, log_format.IMAGE_TAG, content, metadata, about)
        self._write(step, summary)

    def flush(self) -> None:
        """Write all pending data to the disk."""
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _add_histograms(self, summary, snapshot):
        vectors = snapshot.histograms.get(records.OUTPUT, ())
        metadata = histogram_metadata.create_summary_metadata("", "")
        for name, vector in zip(snapshot.names, vectors, strict=False):
            counted = histogram.unpack(vector)
            if counted is not None:
                tag = log_format.HISTOGRAM_PREFIX + name
                about = _SAMPLED.format(stride=counted.stride)
                self._add(summary, tag, counted.rows, metadata, about)

    def _add_findings(self, summary, findings):
        metadata = text_metadata.create_summary_metadata("", "")
        self._add(summary, log_format.FINDINGS_TAG, findings, metadata)

    def _add(self, summary, tag, value, metadata, description=""):
        if not isinstance(value, str):
            value = np.asarray(value)
        added = summary.value.add(tag=tag, tensor=tensor_util.make_tensor_proto(value))
        if (
            tag not in self._tags
        ):  # TensorBoard reads metadata from the first value of a tag
            self._tags.add(tag)
            added.metadata.CopyFrom(metadata)
            added.metadata.summary_description = description

    def _write(self, step, summary):
        self._writer.add_event(
            _EVENTS.Event(wall_time=time.time(), step=step, summary=summary)
        )


def _own_metadata():
    return _SUMMARIES.SummaryMetadata(
        plugin_data=_SUMMARIES.SummaryMetadata.PluginData(
            plugin_name=PLUGIN, content=log_format.metadata_content()
        ),
        # TensorBoard ignores a summary without a data class.
        data_class=_SUMMARIES.DATA_CLASS_TENSOR,
    )
