"""An event file as records of bytes: the start of each record, and whether it is intact.

The format is that of TFRecord files: the length of the data (8 bytes), a checksum of the
length (4 bytes), the data, and a checksum of the data (4 bytes). TensorBoard's loaders stop
silently at the first damaged record, its fast loader does not check the data, and neither
reports the place of the damage.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

EVENT_FILES = "*tfevents*"
"""Pattern of the names of event files, as in TensorBoard."""

_HEADER, _CHECKSUM = struct.Struct("<QI"), struct.Struct("<I")


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        start: The byte at which the record begins.
        data: Its content, damaged or not; None if the length is damaged.
        intact: Whether the checksums are correct.
    """

    start: int
    data: bytes | None
    intact: bool

    @property
    def end(self) -> int:
        """The byte after the record; `start` if the length is damaged."""
        around = _HEADER.size + _CHECKSUM.size
        return self.start + (0 if self.data is None else around + len(self.data))


def read_records(path: str | Path, start: int = 0) -> Iterator[Record]:
    """The records of a file in their order.

    A record with damaged data is followed by the next record. A record with a damaged
    length is the last, because the start of the next one is unknown. A record that is cut
    at the end of the file is left out: the file is still being written, or its writer was
    killed.

    Args:
        path: The file.
        start: The byte at which the first record begins. Defaults to `0`.

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


def framed(data: bytes) -> bytes:
    """The bytes of a record in a file, with its length and checksums.

    Args:
        data: The content of the record.
    """
    length = len(data).to_bytes(8, "little")
    header = _HEADER.pack(len(data), _masked_checksum(length))
    return b"".join([header, data, _CHECKSUM.pack(_masked_checksum(data))])


class Checked(NamedTuple):
    """The result of a check of a file.

    Attributes:
        end: The byte at which the next check begins.
        damaged: The byte at which the first damaged record begins; None if all are intact.
    """

    end: int = 0
    damaged: int | None = None


def check(path: str | Path, before: Checked | None = None) -> Checked:
    """Check a file for damage.

    Args:
        path: The file.
        before: The result of the previous check. Only records written since then are read.
            Defaults to `None`, which checks the whole file.

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
    """CRC-32C, rotated and shifted, because a CRC of data that contain CRCs is weak."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
