"""Writes snapshots to a TensorBoard event file.

All data of one step are one event. The file is in its own run folder (`RUN` inside the log
folder), which no other writer may share: TensorBoard's Python reader follows only the
newest file of a folder. In addition to the tags of `log_format`, the file has

* `~activation_mean/<layer>`, `~activation_std/<layer>`: scalars, with `scalars=True`;
* `~gradient_rms/<layer>`: the rms of the gradient of the loss with respect to the output,
  and `~update_ratio/<layer>`: that of the update of the kernel over that of the kernel; as
  scalars, where they were measured, with `scalars=True`;
* `~activations/<layer>`, `~gradients/<layer>`: histograms, at some of the steps
  (`tabs.shows`);

where `<layer>` is the position of the layer and its name, see `tabs.tag`; and
* `activation_monitor/findings`: the diagnosis as Markdown, at each change;
* `activation_monitor/depth_by_step`: an image of all layers at all steps, at the end.
"""

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import metadata as text_metadata
from tensorboard.util import tensor_util

from activation_monitor.analysis.snapshot import Snapshot
from activation_monitor.storage import log_format, tabs
from activation_monitor.storage.event_file import EventFile, size_of
from activation_monitor.storage.plugin_name import PLUGIN

# protobuf creates the classes when the module is imported. Type checkers do not see them.
_EVENTS: Any = event_pb2
_SUMMARIES: Any = summary_pb2


class EventLog:
    """Writes snapshots in a background thread, which also encodes them.

    Args:
        log_dir: The log folder. The run folder is created in it.
        run: Name of the run folder. Defaults to `log_format.RUN`.
        scalars: Whether to write mean and std of each layer, rms of its gradient and its
            update ratio as scalars, for TensorBoard's Scalars tab, which shows a card for
            each. Defaults to `True`.
        budget: About how many bytes the files of the run folder may have. With n snapshots
            in the first half of it, the file has at most `1 - n / 2m` of the budget after m
            snapshots: every fourth is written around m = 2n, and every hundredth around
            m = 10n. Snapshots with a verdict are always written. Defaults to `None`, no
            limit.

    Attributes:
        run_dir: The run folder.
        thinned_from: The first step that was not written, to keep to the budget; None if
            all were.

    Raises:
        OSError, tensorflow.errors.OpError: If the folder cannot be written to. The next
            call raises an error that occurs later, in the background thread.
    """

    def __init__(
        self,
        log_dir: str | Path,
        run: str = log_format.RUN,
        scalars: bool = True,
        budget: int | None = None,
    ):
        self._scalars = scalars
        self.run_dir = os.path.join(log_dir, run)  # a `Path` would spoil "gs://"
        self.thinned_from: int | None = None
        used = 0 if budget is None else size_of(self.run_dir)
        self._budget = None if budget is None else max(budget - used, 0)
        self._file = EventFile(self.run_dir)
        # What follows belongs to the background thread.
        self._tags = set[str]()
        self._table: log_format.Table | None = None
        self._copies = tabs.Copies(())
        self._snapshots = self._written = self._largest = 0
        self._in_first_half: int | None = None

    def write(self, snapshot: Snapshot, findings: str | None = None) -> None:
        """Write all data of one step.

        Args:
            snapshot: The measurements of the step.
            findings: The diagnosis as Markdown, if it has changed. Defaults to `None`.
        """
        self._put(snapshot.step, self._add_snapshot, snapshot, findings)

    def write_verdict(self, step: int, findings: str) -> None:
        """Write only the diagnosis.

        Args:
            step: The last step that it covers.
            findings: The diagnosis as Markdown.
        """
        self._put(step, self._add_findings, findings)

    def write_image(self, step: int, png: bytes, size: tuple[int, int], about: str) -> None:
        """Write an image for TensorBoard's Images tab.

        Args:
            step: The last step that the image shows.
            png: The content of a PNG file.
            size: Width and height in pixels.
            about: The description of the image.
        """
        # An array of NumPy's byte strings would lose trailing zeros.
        content = np.array([b"%d" % size[0], b"%d" % size[1], png], object)
        metadata = image_metadata.create_summary_metadata("", "")
        self._put(step, self._add, log_format.IMAGE_TAG, content, metadata, about)

    def flush(self) -> None:
        """Write all pending data to the disk."""
        self._file.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._file.close()

    def _put(self, step, add, *args):
        """Write an event, with what `add` adds to its summary in the background thread."""
        now = time.time()

        def make():
            event = _EVENTS.Event(wall_time=now, step=step)
            added = add(event.summary, *args)
            return None if added is False else event.SerializeToString()

        self._file.put(make)

    def _is_within_budget(self):
        """Whether the next snapshot is written."""
        self._snapshots += 1
        if self._budget is None:
            return True
        if self._in_first_half is None:
            if self._file.size <= self._budget / 2:
                return True
            self._in_first_half = self._snapshots
        share = 1.0 - self._in_first_half / (2.0 * self._snapshots)
        return self._file.size + self._largest <= share * self._budget

    def _add_snapshot(self, summary, snapshot, findings):
        """Returns False if the snapshot is not written."""
        if not self._is_within_budget() and findings is None:
            if self.thinned_from is None:
                self.thinned_from = snapshot.step
            return False
        table, arrays = log_format.encode(snapshot)
        if table != self._table:
            self._table, self._copies = table, tabs.Copies(table.layers)
            text = log_format.table_to_json(table)
            self._add(summary, log_format.LAYERS_TAG, text, _own_metadata())
        for tag, array in arrays.items():
            self._add(summary, tag, array, _own_metadata())
        if findings is not None:
            self._add_findings(summary, findings)
        if self._scalars:
            self._copies.add_scalars(summary, snapshot)
        if tabs.shows(self._written):
            self._copies.add_histograms(summary, snapshot, self._tags)
        self._written += 1
        self._largest = max(self._largest, summary.ByteSize())
        return True

    def _add_findings(self, summary, findings):
        metadata = text_metadata.create_summary_metadata("", "")
        self._add(summary, log_format.FINDINGS_TAG, findings, metadata)

    def _add(self, summary, tag, value, metadata, description=""):
        if not isinstance(value, str):
            value = np.asarray(value)
        added = summary.value.add(tag=tag, tensor=tensor_util.make_tensor_proto(value))
        if tag not in self._tags:
            # TensorBoard reads metadata from the first value of a tag.
            self._tags.add(tag)
            added.metadata.CopyFrom(metadata)
            added.metadata.summary_description = description


def _own_metadata():
    return _SUMMARIES.SummaryMetadata(
        plugin_data=_SUMMARIES.SummaryMetadata.PluginData(
            plugin_name=PLUGIN, content=log_format.metadata_content()
        ),
        # TensorBoard ignores a summary without a data class.
        data_class=_SUMMARIES.DATA_CLASS_TENSOR,
    )
