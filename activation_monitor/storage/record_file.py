"""An event file as records of bytes: where each one begins, and whether it is intact.

The format is that of TFRecord files: the length of the data (8 bytes), a checksum of the
length (4 bytes), the data, and a checksum of the data (4 bytes). TensorBoard's own loaders
end silently at the first damaged record, and TensorBoard's fast loader does not check the
data; the place of the damage is not to be had from either.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

EVENT_FILES = "*tfevents*"
"""Pattern of the names of event files, TensorBoard's too."""

_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        start: The byte at which it begins.
        data: What is in it, damaged or not; None if its length is damaged.
        intact: Whether its checksums are right.
    """

    start: int
    data: bytes | None
    intact: bool

    @property
    def end(self) -> int:
        """The byte after it; that at which it begins, if its length is damaged."""
        around = _HEADER.size + _CHECKSUM.size
        return self.start + (0 if self.data is None else around + len(self.data))


def read_records(path: str | Path, start: int = 0) -> Iterator[Record]:
    """The records of a file, one after the other.

    After a record whose data are damaged the next one is read. A record whose length is
    damaged is the last: where the next one begins is not known. A record that is cut at
    the end of the file is left out: the file is being written, or its writer was killed.

    Args:
        path: The file.
        start: The byte at which the first record begins.

    Raises:
        OSError: If the file cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(start)
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            length, checksum = _HEADER.unpack(header)
            if _masked_checksum(header[:8]) != checksum:
                yield Record(start, None, False)
                return
            data = file.read(length)
            written = file.read(_CHECKSUM.size)
            if len(written) < _CHECKSUM.size:
                return
            intact = _CHECKSUM.unpack(written)[0] == _masked_checksum(data)
            record = Record(start, data, intact)
            yield record
            start = record.end


class Checked(NamedTuple):
    """A file as far as it was checked.

    Attributes:
        end: The byte at which the next record begins.
        damaged: The byte at which the first damaged record begins; None if there is none.
    """

    end: int = 0
    damaged: int | None = None


def check(path: str | Path, before: Checked | None = None) -> Checked:
    """Look for damage in a file.

    Args:
        path: The file.
        before: What was found the last time; only what was written since is read then.

    Raises:
        OSError: If the file cannot be read.
    """
    end, damaged = before or Checked()
    for record in read_records(path, end):
        end = record.end
        if damaged is None and not record.intact:
            damaged = record.start
    return Checked(end, damaged)


def _masked_checksum(data):
    """CRC-32C, rotated and shifted: a checksum of data that hold checksums is weak."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
