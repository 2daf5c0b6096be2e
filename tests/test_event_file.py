"""The event file that a background thread writes: what it holds, when, and its errors."""

import io
import threading
import time

import pytest
from tensorboard.compat.proto import event_pb2

from activation_monitor.storage import event_file
from activation_monitor.storage.event_file import EventFile
from activation_monitor.storage.record_file import EVENT_FILES, read_records
from activation_monitor.storage.writer import EventLog


def event(step):
    return event_pb2.Event(step=step).SerializeToString


def steps(folder):
    """The steps in the only file of a folder, after the event that names the format."""
    (path,) = folder.glob(EVENT_FILES)
    first, *found = (event_pb2.Event.FromString(one.data) for one in read_records(path))
    assert first.file_version == "brain.Event:2"
    return [one.step for one in found]


def test_events_are_written_in_the_order_in_which_they_were_put(tmp_path):
    """In a folder that did not exist. After `flush` they are in the file."""
    file = EventFile(str(tmp_path / "a" / "b"))
    assert steps(tmp_path / "a" / "b") == []
    for step in range(300):
        file.put(event(step))
    file.flush()
    assert steps(tmp_path / "a" / "b") == [*range(300)]
    file.put(event(300))
    file.close()
    assert steps(tmp_path / "a" / "b") == [*range(301)]


class Remote:
    """Stands for the remote folders of `tf.io.gfile`; notes their names."""

    def __init__(self):
        self.files, self.io, self.gfile = {}, self, self

    def makedirs(self, folder):
        assert folder.startswith("gs://")

    def isdir(self, folder):
        return any(name.startswith(folder) for name in self.files)

    def GFile(self, name, mode):  # noqa: N802
        assert mode == "wb"
        self.files[name] = io.BytesIO()
        return self.files[name]


@pytest.mark.parametrize("log_dir", ["gs://bucket/run", "gs://bucket/run/"])
def test_a_remote_log_is_opened_by_its_address(monkeypatch, log_dir):
    """No folder of that name is made here."""
    remote = Remote()
    monkeypatch.setattr(event_file, "_REMOTE", remote)
    EventLog(log_dir, budget=1000).close()
    (name,) = remote.files
    assert name.startswith("gs://bucket/run/activations/events.out.tfevents.")


def test_events_are_made_in_the_background(tmp_path):
    """`put` does not wait for them; `flush` and `close` do."""
    file, go, made_by = EventFile(str(tmp_path)), threading.Event(), []

    def make():
        made_by.append(threading.current_thread())
        assert go.wait(30)
        return event(0)()

    file.put(make)
    file.put(event(1))
    go.set()
    file.flush()
    assert steps(tmp_path) == [0, 1]
    assert made_by != [threading.current_thread()]
    file.close()


def test_without_flush_an_event_is_in_the_file_after_a_while(tmp_path, monkeypatch):
    """For readers of a training that runs."""
    monkeypatch.setattr(event_file, "_FLUSH_SECS", 0.05)
    file = EventFile(str(tmp_path))
    for step in range(2):
        file.put(event(step))
        end = time.monotonic() + 30
        while steps(tmp_path) != [*range(step + 1)]:
            assert time.monotonic() < end
            time.sleep(0.01)
    file.close()


@pytest.mark.parametrize("then", ["put", "flush", "close"])
def test_an_error_in_the_background_is_raised_by_the_next_call(tmp_path, then):
    """And by all later ones. Nobody waits for the thread, and nothing more is written."""
    file = EventFile(str(tmp_path))
    file.put(event(0))

    def fails():
        raise OSError("no space left")

    file.put(fails)
    while file._error is None:
        time.sleep(0.01)
    args = (event(1),) if then == "put" else ()
    for _ in range(2):
        with pytest.raises(OSError, match="no space left"):
            getattr(file, then)(*args)
    with pytest.raises(OSError, match="no space left"):
        file.close()
    assert not file._thread.is_alive()
    assert steps(tmp_path) == [0]


def test_a_failure_while_many_events_wait_does_not_block(tmp_path, monkeypatch):
    """Those that wait are dropped."""
    monkeypatch.setattr(event_file, "_PENDING", 2)
    file, go = EventFile(str(tmp_path)), threading.Event()

    def fails():
        assert go.wait(30)
        raise OSError("no space left")

    threading.Timer(0.1, go.set).start()
    with pytest.raises(OSError, match="no space left"):
        for _ in range(100):
            file.put(fails)
        file.flush()


def test_a_closed_file_takes_no_more_events(tmp_path):
    """Closing it again does nothing."""
    file = EventFile(str(tmp_path))
    file.close()
    file.close()
    with pytest.raises(ValueError, match="the file is closed"):
        file.put(event(0))
    assert steps(tmp_path) == []


def test_files_of_one_process_have_different_names(tmp_path):
    """Also within one second."""
    for _ in range(3):
        EventFile(str(tmp_path)).close()
    assert len([*tmp_path.glob(EVENT_FILES)]) == 3
