"""Event files as records: where each begins, what is damaged, what is only cut."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.compat.tensorflow_stub import pywrap_tensorflow
from tensorboard.summary.writer.record_writer import RecordWriter

from activation_monitor.storage import record_file
from activation_monitor.storage.record_file import Checked, check, framed, read_records

DATA = (b"first", b"", b"\x00" * 1000, b"the last one")
STARTS = (0, 21, 37, 1053)
"""16 bytes around the data of each record."""


@pytest.fixture
def path(tmp_path):
    """A file with these records, as TensorBoard writes it."""
    path = tmp_path / "events.out.tfevents.1.x"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for data in DATA:
            writer.write(data)
    return path


def flip(path, at):
    """Damage one bit of the byte at this place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_records_are_those_that_tensorboard_wrote_and_tensorflow_reads(path):
    """In their order, each with the byte at which it begins."""
    records = [*read_records(path)]
    assert tuple(record.data for record in records) == DATA
    assert tuple(record.start for record in records) == STARTS
    assert all(record.intact for record in records)
    assert records[-1].end == path.stat().st_size
    read = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    assert tuple(read) == DATA


def test_a_record_is_written_as_tensorboard_writes_it(path):
    """Byte for byte."""
    assert b"".join(map(framed, DATA)) == path.read_bytes()


@pytest.mark.parametrize("start", range(4))
def test_reading_may_begin_at_any_record(path, start):
    """At the end of the record before it."""
    records = [*read_records(path, STARTS[start])]
    assert tuple(record.data for record in records) == DATA[start:]


def test_the_checksum_is_that_of_tensorboards_own_implementation():
    """For data of many lengths, with bytes from 0 to 255."""
    rng = np.random.default_rng(0)
    for length in (0, 1, 7, 8, 9, 1000):
        data = rng.bytes(length)
        expected = pywrap_tensorflow.masked_crc32c(data)
        assert record_file._masked_checksum(data) == expected


@pytest.mark.parametrize("at", [37 + 12, 37 + 500, 37 + 12 + 999, 37 + 12 + 1000])
def test_after_damaged_data_the_next_record_is_read(path, at):
    """Damage of the first, a middle or the last byte of the data, or of their checksum."""
    flip(path, at)
    records = [*read_records(path)]
    assert [record.intact for record in records] == [True, True, False, True]
    assert records[2].start == 37 and records[3].data == DATA[3]


@pytest.mark.parametrize("at", [37, 37 + 7, 37 + 8, 37 + 11])
def test_a_record_whose_length_is_damaged_is_the_last(path, at):
    """Damage of the length or its checksum: the start of the next record is unknown."""
    flip(path, at)
    records = [*read_records(path)]
    assert [record.start for record in records] == [0, 21, 37]
    assert [record.intact for record in records] == [True, True, False]
    assert records[-1].data is None


@pytest.mark.parametrize("length", range(1053, 1053 + 28))
def test_a_record_that_is_cut_is_left_out_and_not_damaged(path, length):
    """At each byte of the last record, because it may still be being written."""
    path.write_bytes(path.read_bytes()[:length])
    records = [*read_records(path)]
    assert tuple(record.data for record in records) == DATA[:3]
    assert all(record.intact for record in records)
    assert check(path) == Checked(1053, None)


def test_zeros_at_the_end_are_damage(path):
    """A crash of the machine may leave them. No valid record consists of zeros."""
    with path.open("ab") as file:
        file.write(bytes(100))
    assert check(path) == Checked(1081, 1081)


def test_a_check_goes_on_where_the_last_one_ended(path):
    """It does not read earlier records again, and keeps the first damage."""
    whole = path.read_bytes()
    path.write_bytes(whole[:1060])
    first = check(path)
    assert first == Checked(1053, None)
    path.write_bytes(whole)
    flip(path, 0)  # not seen again
    flip(path, 1053 + 12)
    assert check(path, first) == Checked(1081, 1053)
    assert check(path, Checked(1053, 21)) == Checked(1081, 21)
    assert check(path) == Checked(0, 0)


def test_an_intact_file_and_an_empty_one_have_no_damage(path, tmp_path):
    """The healthy counterparts."""
    assert check(path) == Checked(1081, None)
    (tmp_path / "empty").write_bytes(b"")
    assert check(tmp_path / "empty") == Checked(0, None)


def test_a_length_beyond_the_end_of_the_file_is_a_cut_record(tmp_path):
    """Its checksum is correct, so it is not damaged, whatever the length."""
    header = struct.pack("<Q", 10**6)
    checksum = struct.pack("<I", pywrap_tensorflow.masked_crc32c(header))
    path = tmp_path / "long"
    path.write_bytes(header + checksum + b"abc")
    assert [*read_records(path)] == []
