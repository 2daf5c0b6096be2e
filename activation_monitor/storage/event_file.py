"""An event file that a background thread writes.

It replaces `EventFileWriter` of TensorBoard, whose thread computes the checksums in Python,
14 ms for a snapshot of 200 layers, while the training thread waits for the interpreter. The
events are made in the thread as well, from what the training thread passes on.
"""

import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from tensorboard.compat import tf
from tensorboard.compat.proto import event_pb2

from activation_monitor.storage.record_file import framed

# protobuf creates the classes when the module is imported. Type checkers do not see them.
_EVENTS: Any = event_pb2
# TensorFlow, or what TensorBoard has in its place: both open remote folders. TensorFlow is
# loaded when an attribute is read, so it is not where a folder is local.
_REMOTE: Any = tf

_PENDING = 100
"""Number of events that may wait. With more, `put` waits."""

_FLUSH_SECS = 10.0
"""After so many seconds what was written is in the file, for readers."""

_counter = itertools.count()


def size_of(folder: str) -> int:
    """Bytes in the files of a folder; 0 if it does not exist.

    Args:
        folder: The folder.
    """
    if not _is_remote(folder):
        if not os.path.isdir(folder):
            return 0
        return sum(os.path.getsize(os.path.join(folder, n)) for n in os.listdir(folder))
    files = _REMOTE.io.gfile
    if not files.isdir(folder):
        return 0
    return sum(files.stat(os.path.join(folder, n)).length for n in files.listdir(folder))


def _is_remote(path):
    return "://" in path


class EventFile:
    """Writes events in a background thread.

    Args:
        folder: The folder of the file. It is created.

    Attributes:
        size: Bytes written so far. It belongs to the background thread.

    Raises:
        OSError, tensorflow.errors.OpError: If the folder cannot be written to; the second
            one for a remote folder.
    """

    def __init__(self, folder: str):
        remote = _is_remote(folder)
        if remote:
            _REMOTE.io.gfile.makedirs(folder)
        else:
            os.makedirs(folder, exist_ok=True)
        # TensorBoard and `reader` order the files of a folder by these numbers.
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}"
        path = os.path.join(folder, f"{name}.{os.getpid()}.{next(_counter)}")
        self._file: Any = _REMOTE.io.gfile.GFile(path, "wb") if remote else open(path, "wb")
        self.size = 0
        self._queue: queue.Queue[Callable[[], bytes | None] | None] = queue.Queue(_PENDING)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        begin = _EVENTS.Event(wall_time=time.time(), file_version="brain.Event:2")
        self.put(begin.SerializeToString)
        self.flush()

    def put(self, make: Callable[[], bytes | None]) -> None:
        """Write the event that a function returns.

        Args:
            make: Called in the background thread, in the order of the calls of `put`.
                Returns a serialized event, or None to write nothing.

        Raises:
            Exception: Any error of an earlier event, once or again.
        """
        self._check()
        if not self._thread.is_alive():
            raise ValueError("EventFile.put: the file is closed.")
        self._queue.put(make)

    def flush(self) -> None:
        """Wait until all events are written to the disk.

        Raises:
            Exception: Any error of an earlier event, once or again.
        """
        self._queue.join()
        self._check()
        self._file.flush()

    def close(self) -> None:
        """Write all events and close the file.

        Raises:
            Exception: Any error of an earlier event, once or again.
        """
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            self._file.close()
        self._check()

    def _check(self):
        if self._error is not None:
            raise self._error

    def _work(self):
        pending, due = False, 0.0
        while True:
            wait = max(due - time.monotonic(), 0.0) if pending else None
            try:
                make = self._queue.get(timeout=wait)
            except queue.Empty:
                self._try(self._file.flush)
                pending = False
                continue
            if make is not None:
                self._try(self._write, make)
                due = due if pending else time.monotonic() + _FLUSH_SECS
                pending = True
            self._queue.task_done()
            if make is None:
                return

    def _write(self, make):
        event = make()
        if event is not None:
            record = framed(event)
            self._file.write(record)
            self.size += len(record)

    def _try(self, function, *args):
        """Nothing is written after an error, but the queue is emptied: nobody waits."""
        if self._error is None:
            try:
                function(*args)
            except Exception as error:
                self._error = error
