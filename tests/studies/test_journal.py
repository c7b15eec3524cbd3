import hashlib
import json
import math
import os
from pathlib import Path

import pandas as pd
import pytest

from studies.engine import journal
from studies.engine.journal import Journal, JournalError


def cell(name, count=2, status="done", **fields):
    """Records of a cell; a trial's key is its cell's name and its number."""
    record = {"format": 1, "study": "depth", "cell": name, "members": count}
    trial = {"role": "report", "arm": "he", "depth": 1, "learning_rate": 0.1}
    return [
        {**record, "key": f"{name}{seed}", **trial, "seed": seed, "status": status, **fields}
        for seed in range(count)
    ]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "depth" / "quick" / "records.jsonl"


def write(path, *cells):
    with Journal(path.parent) as writer:
        for records in cells:
            writer.append(records)


def keys(path):
    return [record["key"] for record in journal.read(path)]


def test_what_is_appended_is_read(path):
    write(path, cell("a"), cell("b"))
    assert journal.read(path) == cell("a") + cell("b")


def test_no_file_is_no_record(path):
    assert journal.read(path) == []


def test_nan_and_infinity_are_null_and_only_curves_are_rounded(path):
    value = 1 / 3
    curves = {"loss": [value, math.nan, 12345678, [123456.0]]}
    write(path, cell("a", 1, test_error=value, ratio=math.inf, curves=curves))
    (record,) = journal.read(path)
    assert record["test_error"] == value
    assert record["ratio"] is None
    assert record["curves"] == {"loss": [0.3333, None, 12345678, [123500.0]]}


def test_numpy_values_are_written_as_pythons(path):
    np = pytest.importorskip("numpy")
    curves = {"loss": np.array([1 / 3, np.nan], np.float32)}
    write(path, cell("a", 1, test_error=np.float64(0.5), best_epoch=np.int64(3), curves=curves))
    (record,) = journal.read(path)
    assert (record["test_error"], record["best_epoch"]) == (0.5, 3)
    assert record["curves"] == {"loss": [0.3333, None]}


def test_pandas_reads_it_without_us(path):
    write(path, cell("a", 3, test_error=math.nan))
    frame = pd.read_json(path, lines=True)
    assert list(frame["seed"]) == [0, 1, 2]
    assert frame["test_error"].isna().all()


def test_what_was_appended_is_what_is_read_back(path):
    with Journal(path.parent) as writer:
        writer.append(cell("a", 1, test_error=math.nan, curves={"loss": (1 / 3,)}))
        assert writer.records == journal.read(path)


@pytest.mark.parametrize("torn", [1, 20, 200])
def test_a_torn_cell_is_dropped_whole_and_cut_off_by_the_next_writer(path, torn):
    write(path, cell("a"), cell("b"))
    whole = path.read_bytes()
    size = len(whole) - torn
    path.write_bytes(whole[:size])
    assert keys(path) == ["a0", "a1"]
    assert path.stat().st_size == size, "reading changes nothing"
    write(path, cell("b"))
    assert path.read_bytes() == whole


def test_every_torn_length_leaves_whole_cells(path):
    write(path, cell("a"), cell("b", 3), cell("b", 3))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        # A line that ends well was not torn.
        if not whole[:size].endswith(b"\n"):
            assert keys(path) in ([], ["a0", "a1"], ["a0", "a1", "b0", "b1", "b2"])


def test_a_torn_retry_leaves_the_failure_before_it(path):
    write(path, cell("a", 3, "error"), cell("a", 3))
    path.write_bytes(path.read_bytes()[:-10])
    assert [r["status"] for r in journal.read(path)] == ["error"] * 3


@pytest.mark.parametrize("line", range(5))
def test_a_deleted_line_costs_no_other_record(path, line):
    """Also the last line, whose cell then looks as if its writer had been killed."""
    write(path, cell("a"), cell("b", 3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:line] + lines[line + 1 :]))
    left = ["a0", "a1", "b0", "b1", "b2"]
    left.pop(line)
    assert keys(path) == left
    write(path, cell("c"))
    assert keys(path) == [*left, "c0", "c1"]


def test_no_changed_byte_changes_a_record(path):
    write(path, cell("a", 2, test_error=0.0143, curves={"loss": [0.5]}))
    whole, records = path.read_bytes(), journal.read(path)
    for place in range(len(whole)):
        for byte in (whole[place] ^ 1, whole[place] ^ 32, 0, 10, 34):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            try:
                found = journal.read(path)
            except JournalError:
                continue
            # What is left of a torn line is none; another name of a checksum leaves the fields.
            found = [{k: v for k, v in r.items() if k in records[0]} for r in found]
            assert all(record in records for record in found)


def test_the_checksum_is_that_of_the_line_without_it(path):
    write(path, cell("a", 1))
    line = path.read_bytes().rstrip()
    written = json.loads(line)
    checksum = written.pop("checksum")
    content = json.dumps(written, separators=(",", ":")).encode()
    assert hashlib.sha256(content).hexdigest()[:16] == checksum
    assert journal.read(path) == [written]
    # A record of an earlier version has none.
    path.write_bytes(content + b"\n")
    assert journal.read(path) == [written]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("learning_rate", value) for value in ("null", "NaN", "1e999", '"0.1"')],
        *[("seed", "-1"), ("seed", "0.5"), ("status", '"fine"'), ("members", "0"), ("key", "3")],
        ("test_error", "Infinity"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(path, field, value):
    (record,) = cell("a", 1, test_error=0.5)
    text = json.dumps(record).replace(
        f'"{field}": {json.dumps(record[field])}', f'"{field}": {value}'
    )
    path.parent.mkdir(parents=True)
    path.write_text(text + "\n")
    with pytest.raises(JournalError, match="corrupted.*line 1"):
        journal.read(path)


def test_what_could_not_be_read_back_is_not_written(path):
    with Journal(path.parent) as writer:
        with pytest.raises(JournalError, match="learning_rate cannot be None"):
            writer.append(cell("a", 1, learning_rate=math.inf))
        assert (writer.records, path.exists()) == ([], False)


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        ("error", "done", "done"),
        ("killed", "error", "error"),
        ("done", "error", "done"),
        ("diverged", "done", "diverged"),
    ],
)
def test_results_are_final_and_failures_are_replaced(path, first, second, kept):
    write(path, cell("a", 2, first), cell("a", 2, second))
    assert [r["status"] for r in journal.read(path)] == [kept, kept]


@pytest.mark.parametrize("line", [b"{broken", b"\x00\x00\xff", b"", b"[1, 2]", b"3"])
def test_a_corrupted_line_is_named_and_nothing_changes(path, line):
    write(path, cell("a"), cell("b"))
    lines = path.read_bytes().splitlines()
    lines[1] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    before = path.read_bytes()
    with pytest.raises(JournalError, match=r"corrupted.*Received: .*records.jsonl, line 2"):
        journal.read(path)
    with pytest.raises(JournalError, match="corrupted"), Journal(path.parent):
        pass
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["records.jsonl", "records.lock"]


def test_a_record_without_its_fields_is_named(path):
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"format": 1, "key": "a"}) + "\n")
    with pytest.raises(JournalError, match=r"lacks cell, members, .*line 1"):
        journal.read(path)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_a_record_of_another_format_is_refused(path, version):
    write(path, cell("a"))
    path.write_bytes(path.read_bytes() + json.dumps({"format": version}).encode() + b"\n")
    with pytest.raises(JournalError, match=rf"Expected .*format 1.*line 3: format={version!r}"):
        journal.read(path)


def test_sorted_records_do_not_depend_on_the_order_they_came_in(path, tmp_path):
    cells = [cell("a", depth=3), cell("b", role="selection"), cell("c", depth=2)]
    other = tmp_path / "other" / "records.jsonl"
    for target, order in ((path, cells), (other, cells[::-1])):
        with Journal(target.parent) as writer:
            for records in order:
                writer.append(records)
            writer.sort()
    assert path.read_bytes() == other.read_bytes()
    assert keys(path) == ["c0", "c1", "a0", "a1", "b0", "b1"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(0.25, 0.5), (1, "1-ab"), (None, 2), ("", "codec"), (None, "codec"), ("lzma", "zlib")],
)
def test_records_are_sorted_by_whatever_their_trials_are(path, first, second):
    """By fields of other kinds too, before rates and seeds."""

    def kind(name, value, rate):
        (record,) = cell(name, 1, learning_rate=rate)
        return [{"key": name, "members": 1, "codec": value, **record}]

    cells = [kind("a", second, 0.1), kind("b", first, 0.3)]
    with Journal(path.parent) as writer:
        for records in cells:
            writer.append(records)
        writer.sort()
    assert keys(path) == ["b0", "a0"]


def test_sorting_keeps_the_newest_of_each_trial_and_cells_together(path):
    with Journal(path.parent) as writer:
        writer.append(cell("b", 3, "error"))
        writer.append(cell("a", 3))
        writer.append([{**r, "key": f"b{r['seed']}"} for r in cell("c", 2)])
        writer.sort()
        assert writer.records == journal.read(path)
    # Of the failed cell one trial is left, which must not look like a torn write.
    assert sorted(keys(path)) == ["a0", "a1", "a2", "b0", "b1", "b2"]
    assert len(path.read_text().splitlines()) == 6


def test_sorting_what_is_sorted_leaves_the_file_alone(path):
    write(path, cell("a"))
    before = path.stat()
    with Journal(path.parent) as writer:
        writer.sort()
    assert path.stat().st_ino == before.st_ino


def test_a_second_writer_is_refused_by_name_of_the_folder(path):
    with Journal(path.parent) as writer:
        writer.append(cell("a"))
        with pytest.raises(JournalError, match=f"Another run.*Received: {path.parent}"):
            Journal(path.parent).__enter__()
    write(path, cell("b"))
    assert keys(path) == ["a0", "a1", "b0", "b1"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match="Could not write to .*Received: .*file"):
        Journal(tmp_path / "file" / "quick").__enter__()


def test_a_read_only_folder_is_named_and_can_be_read(path, read_only):
    write(path, cell("a"))
    with read_only(path.parent):
        with pytest.raises(JournalError, match="Permission denied.*Received: "):
            Journal(Path()).__enter__()
        assert keys(Path(path.name)) == ["a0", "a1"]


def test_the_names_of_new_files_are_on_the_disk_too(path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (fsync(fd), synced.append(os.fstat(fd).st_ino)))
    folder = path.parent
    with Journal(folder) as writer:
        writer.append(cell("b"))
        assert synced == [path.stat().st_ino, folder.stat().st_ino]
        writer.append(cell("a"))
        assert synced[2:] == [path.stat().st_ino]
        writer.sort()
        assert synced[3:] == [path.stat().st_ino, folder.stat().st_ino]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_a_clear_error(path):
    path.parent.mkdir(parents=True)
    with Journal(path.parent) as writer:
        path.symlink_to("/dev/full")
        with pytest.raises(JournalError, match="No space left.*Expected .*Received: "):
            writer.append(cell("a"))
        assert writer.records == []


def test_a_disk_that_fills_up_within_a_cell_leaves_what_was_there(path, monkeypatch):
    write(path, cell("a"))
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    def half(file, content):
        file.write(content[: len(content) // 2])
        full()

    with Journal(path.parent) as writer:
        monkeypatch.setattr(journal, "_write", half)
        with pytest.raises(JournalError, match="No space left"):
            writer.append(cell("b"))
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(JournalError, match="No space left"):
            writer._records.reverse()
            writer.sort()
    assert path.read_bytes() == before
    assert sorted(p.name for p in path.parent.iterdir()) == ["records.jsonl", "records.lock"]
