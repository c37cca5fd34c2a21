"""Self-checking files: tables and JSON that contain their own CRC-32.

A table's footer holds eight hexadecimal digits under :data:`KEY`: the CRC-32 of the whole file with zeros in their
place. JSON holds the CRC-32 of its other keys, sorted and without spaces. Files without a checksum, written by older
versions, are read if possible.
"""

import json
import zlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

KEY = "crc32"
BLANK = b"00000000"
MARK = KEY.encode() + b"\x18\x08"  # before the digits in the footer: the end of a key, and a text of eight bytes
ENDS = b"PAR1"
BLOCK = 1 << 20


class DamagedError(Exception):
    """A file has changed since it was written; the message says how this was detected."""


def error_text(error: BaseException) -> str:
    """A reader's error on a damaged file, in half a line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).partition(". ")[0][:100]


def digest(path: Path) -> list[int]:
    """Length in bytes and CRC-32 of a file."""
    length = found = 0
    with open(path, "rb") as handle:
        while block := handle.read(BLOCK):
            length, found = length + len(block), zlib.crc32(block, found)
    return [length, found]


# ---------------------------------------------------------------------------------------------------------- tables


def table_bytes(table: pa.Table) -> bytes:
    """The table as a Parquet file with checksums of its pages and of the whole."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({KEY: BLANK.decode()})
    raw = sink.getvalue().to_pybytes()
    at = raw.rindex(MARK + BLANK) + len(MARK)
    return raw[:at] + b"%08x" % zlib.crc32(raw) + raw[at + len(BLANK) :]


def _check_whole(raw: bytes) -> None:
    """``DamagedError`` if the file is truncated or does not match its checksum."""
    if not raw:
        raise DamagedError("it is empty")
    if raw[-len(ENDS) :] != ENDS:
        raise DamagedError("it is truncated or not a table")
    at = raw.rfind(MARK) + len(MARK)
    if at < len(MARK):  # of an older version
        return
    end = at + len(BLANK)
    if b"%08x" % zlib.crc32(raw[end:], zlib.crc32(BLANK, zlib.crc32(raw[:at]))) != raw[at:end]:
        raise DamagedError("its checksum is wrong")


def read_table(path: Path, wanted: Collection[str] | None = None, texts: Collection[str] = ()) -> pa.Table:
    """Read a table with its columns in ``wanted`` (None: all); text columns in ``texts`` become dictionaries.

    ``DamagedError`` if the file has changed since it was written; ``OSError`` if there is none.
    """
    raw = Path(path).read_bytes()
    _check_whole(raw)
    options: Any = {"page_checksum_verification": True}
    try:
        with pq.ParquetFile(pa.BufferReader(raw), **options) as file:
            schema, footer = file.schema_arrow, file.metadata
        names = [name for name in schema.names if wanted is None or name in wanted]
        few = [name for name in names if name in texts and pa.types.is_string(schema.field(name).type)]
        with pq.ParquetFile(pa.BufferReader(raw), metadata=footer, read_dictionary=few, **options) as file:
            return file.read(columns=names, use_threads=len(raw) > BLOCK)
    except Exception as error:  # a damaged footer of an older file can make the reader raise nearly anything
        raise DamagedError(error_text(error)) from error


# ------------------------------------------------------------------------------------------------------------ JSON


def _checksum(data: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(data, sort_keys=True, separators=(',', ':')).encode()):08x}"


def to_json(data: Mapping[str, Any], indent: int | None = 1) -> str:
    """The mapping as JSON, with its checksum as the last key."""
    plain = json.loads(json.dumps(data))  # as it will be read: keys are texts, tuples are lists
    return json.dumps({**plain, KEY: _checksum(plain)}, indent=indent)


def read_json(path: Path) -> dict[str, Any]:
    """Read the mapping that :func:`to_json` wrote, without its checksum.

    ``DamagedError`` if it is not a mapping or has changed since it was written; ``OSError`` if there is no file.
    """
    raw = path.read_bytes()
    try:
        data = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(error_text(error) if raw else "it is empty") from error
    if not isinstance(data, dict):
        raise DamagedError(f"it contains a {type(data).__name__}, not a mapping")
    expected = data.pop(KEY, None)
    if expected is not None and expected != _checksum(data):
        raise DamagedError("its checksum is wrong")
    return data


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether a value from JSON is an integer of at least ``least``."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def is_list(value: Any, each: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(each, value))


def has(value: Any, **facts: Callable[[Any], bool]) -> bool:
    """Whether a value from JSON is a mapping with all keys of ``facts`` whose values pass the given checks."""
    return isinstance(value, dict) and all(key in value and kind(value[key]) for key, kind in facts.items())
