"""Tables and JSON with checksums."""

import zlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from plasticity.runs import checksums
from plasticity.runs.accounts import EVALUATIONS, from_footer, note, read_status, table_parts, to_footer
from plasticity.runs.checksums import DamagedError, read_json, read_table, to_json

TABLE = pa.table({"arm": ["a"] * 50, "step": list(range(50)), "x": np.linspace(0, 1, 50, dtype=np.float32)})


@pytest.fixture
def path(tmp_path):
    (tmp_path / "table").write_bytes(checksums.table_bytes(TABLE))
    return tmp_path / "table"


def test_anybody_reads_the_table(path):
    assert read_table(path).equals(TABLE)
    assert pq.read_table(path).equals(TABLE)
    assert read_table(path, ["x", "absent"]).equals(TABLE.select(["x"]))
    assert pa.types.is_dictionary(read_table(path, texts=["arm", "x"]).schema.field("arm").type)
    raw = path.read_bytes()
    at = raw.rindex(checksums.MARK) + len(checksums.MARK)
    assert int(raw[at : at + 8], 16) == zlib.crc32(raw[:at] + b"00000000" + raw[at + 8 :])


def test_every_flipped_byte_of_a_table_is_noticed_or_harmless(path):
    """In pages, headers and the footer; harmless where the checksum is no longer found, and all else is sound."""
    raw, harmless = path.read_bytes(), 0
    for place in range(0, len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1 + place % 255
        path.write_bytes(changed)
        try:
            assert read_table(path).equals(TABLE)
            harmless += 1
        except DamagedError:
            pass
    assert harmless <= len(checksums.MARK)


def test_every_cut_of_a_table_is_noticed(path):
    raw = path.read_bytes()
    for length in (0, *range(1, len(raw), 53), len(raw) - 1):
        path.write_bytes(raw[:length])
        with pytest.raises(DamagedError):
            read_table(path)
    with pytest.raises(FileNotFoundError):
        read_table(path.with_name("nowhere"))


def test_a_table_of_an_older_version_is_read_with_what_it_has(tmp_path):
    pq.write_table(TABLE, tmp_path / "old")
    assert read_table(tmp_path / "old").equals(TABLE)
    (tmp_path / "old").write_bytes((tmp_path / "old").read_bytes()[:-20] + b"PAR1")
    with pytest.raises(DamagedError):
        read_table(tmp_path / "old")


def test_json_of_one_changed_character_is_noticed(tmp_path):
    data, path = {"b": [1, 2.5, None, "é"], "a": {"x": True}}, tmp_path / "file"
    text = to_json(data)
    path.write_text(text)
    assert read_json(path) == data
    for place, character in enumerate(text):
        path.write_text(text[:place] + ("1" if character != "1" else "2") + text[place + 1 :])
        try:
            found = read_json(path)
        except DamagedError:
            continue
        # No other checksum was found: as of older versions.
        assert found == data or checksums.KEY not in path.read_text()
        assert {key: found[key] for key in data} == data
    path.write_text('{"a": 1}')
    assert read_json(path) == {"a": 1}


@pytest.mark.parametrize("text", ["", "[]", "null", "3", "{", "\xff", "[" * 100_000])
def test_what_is_no_mapping_is_damaged(tmp_path, text):
    (tmp_path / "file").write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedError):
        read_json(tmp_path / "file")


STATUS = {"state": "running", "finished": [0], "program": 1, "step": 5, "updated": 1.5, "steps_per_second": 2.0}


@pytest.mark.parametrize("key", STATUS)
@pytest.mark.parametrize("value", ["text", [1.5], {}, None, -1, True])
def test_a_status_of_other_types_is_left_out_and_named(tmp_path, key, value):
    if isinstance(value, str | int) and key in ("state", "updated", "steps_per_second") and value is not True:
        value = [value]
    (tmp_path / "status.json").write_text(to_json(STATUS))
    assert read_status(tmp_path) == STATUS
    (tmp_path / "status.json").write_text(to_json({**STATUS, key: value}))
    told = []
    assert read_status(tmp_path, lambda path, why: told.append((path.name, why))) == {}
    assert told == [("status.json", "it is not the status of an arm")]
    (tmp_path / "status.json").write_text("{}")
    assert read_status(tmp_path, lambda path, why: told.append(path.name)) == {}
    assert told[1:] == ["status.json"]


def test_missing_parts_are_named(tmp_path):
    """Those between others, and, once a program is finished, those at its end."""
    (tmp_path / "metrics").mkdir()
    for name in ("part-000-00001", "part-001-00000"):
        (tmp_path / "metrics" / f"{name}.parquet").touch()
    told = []
    assert len(table_parts(tmp_path, lambda path, why: told.append(path.name))) == 2
    assert told == ["part-000-00000.parquet"]
    (tmp_path / "status.json").write_text(to_json({**STATUS, "parts": {"1": 2}}))
    told.clear()
    table_parts(tmp_path, lambda path, why: told.append(path.name))
    assert told == ["part-000-00000.parquet", "part-001-00001.parquet"]


def test_parts_that_the_table_of_lanes_notes(tmp_path):
    """The last part of a run that has stopped, and parts of the evaluations, which no numbering would miss."""
    for folder, names in (("metrics", ["000-00000", "000-00001"]), ("evaluations", ["000-00002", "001-00000"])):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / f"part-{name}.parquet").touch()

    def missing(folder):
        told = []
        table_parts(tmp_path, lambda path, why: told.append((path.name, why)), folder)
        return told

    assert missing("metrics") == missing(EVALUATIONS) == []
    names = ["evaluations/part-000-00000.parquet", "evaluations/part-000-00002.parquet"]
    notes = {1: "1", 0: note(0, 3, names)}
    assert notes[0] == "101"
    table = TABLE.replace_schema_metadata(to_footer(notes))
    (tmp_path / "lanes.parquet").write_bytes(checksums.table_bytes(table))
    assert missing("metrics") == [
        ("part-000-00002.parquet", "it is missing"),
        ("part-001-00000.parquet", "it is missing"),
    ]
    assert missing(EVALUATIONS) == [("part-000-00000.parquet", "it is missing")]


@pytest.mark.parametrize("text", ["", "[]", "3", '{"x": "1"}', '{"0": 1}', "\x01"])
def test_notes_of_another_kind_say_nothing(text):
    assert from_footer({b"parts": text.encode()}) == {}
    assert from_footer(None) == from_footer({}) == {}


def test_a_status_is_missed_where_there_are_tables(tmp_path):
    told = []
    assert read_status(tmp_path, lambda path, why: told.append((path.name, why))) == {}
    assert told == []  # not started
    (tmp_path / "lanes.parquet").touch()
    assert read_status(tmp_path, lambda path, why: told.append((path.name, why))) == {}
    assert told == [("status.json", "it is missing")]
