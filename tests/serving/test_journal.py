"""The log of documents: what was acknowledged is there after any crash, for every process that looks."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ranker.serving.journal import LOG, Journal, JournalError, check_writable

VECTORS = np.eye(3, dtype=np.float32)


def put(journal: Journal, *doc_ids: str, words: str = "text of") -> None:
    texts = [f"{words} {doc_id}" for doc_id in doc_ids]
    journal.append(doc_ids, [None] * len(doc_ids), texts, VECTORS[: len(doc_ids)], "encoder")


def texts(journal: Journal) -> dict[str, str]:
    journal.refresh()
    return {doc_id: journal.row(place)[1] for doc_id, place in journal.places.items() if place is not None}


def test_one_writes_and_others_read_on(tmp_path: Path):
    writer, reader = Journal(tmp_path / "new"), Journal(tmp_path / "new")
    assert reader.refresh() == (False, [])
    put(writer, "a", "b")
    again, [change] = reader.refresh()
    assert (again, change.doc_ids, change.encoder) == (False, ["a", "b"], "encoder")
    assert np.array_equal(change.vectors, VECTORS[:2])
    assert reader.refresh() == (False, [])
    writer.delete(["a"])
    put(reader, "b", words="another text of")  # whoever comes next writes behind what is there
    assert texts(reader) == texts(writer) == texts(Journal(tmp_path / "new")) == {"b": "another text of b"}


@pytest.mark.parametrize("cut", [1, 20, 200])
def test_a_torn_record_is_none_and_the_next_writer_cuts_it_off(tmp_path: Path, cut: int):
    put(Journal(tmp_path), "a")
    whole = (tmp_path / LOG).stat().st_size
    put(Journal(tmp_path), "b")
    with (tmp_path / LOG).open("r+b") as stream:
        stream.truncate(whole + cut)
    reader = Journal(tmp_path)
    assert texts(reader) == {"a": "text of a"}
    put(Journal(tmp_path), "c")
    assert texts(reader) == {"a": "text of a", "c": "text of c"}


def test_a_flipped_bit_ends_the_log_before_it_and_what_follows_is_set_aside(tmp_path: Path, caplog):
    put(Journal(tmp_path), "a")
    whole = (tmp_path / LOG).stat().st_size
    put(Journal(tmp_path), "b")
    put(Journal(tmp_path), "c")
    witness = Journal(tmp_path)  # has read all three before the disk spoilt the second
    assert [*texts(witness)] == ["a", "b", "c"]
    content = bytearray((tmp_path / LOG).read_bytes())
    content[whole + 100] ^= 1
    with (tmp_path / LOG).open("r+b") as stream:
        stream.write(content)
    assert texts(Journal(tmp_path)) == {"a": "text of a"}
    put(Journal(tmp_path), "d")
    [aside] = tmp_path.glob("documents.log.cut-*")
    assert aside.read_bytes() == bytes(content[whole:]) and aside.name in caplog.text
    again, _ = witness.refresh()
    assert again and texts(witness) == texts(Journal(tmp_path)) == {"a": "text of a", "d": "text of d"}
    put(witness, "e")
    assert [*tmp_path.glob("documents.log.cut-*")] == [aside]


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / LOG).write_text("a log of something else")
    with pytest.raises(JournalError, match=r"documents\.log: not a log of documents"):
        Journal(tmp_path).refresh()


def test_a_log_of_mostly_old_rows_is_written_anew_and_readers_notice(tmp_path: Path):
    writer, reader = Journal(tmp_path, smallest_compaction=20_000), Journal(tmp_path)
    put(writer, "kept")
    put(writer, "gone")
    writer.delete(["gone"])
    reader.refresh()
    sizes = []
    for number in range(60):
        put(writer, "replaced", words=f"version {number} of")
        sizes.append((tmp_path / LOG).stat().st_size)
    assert max(sizes) < 25_000 and any(after < before for before, after in pairwise(sizes))
    again, changes = reader.refresh()
    assert again and {doc_id for change in changes for doc_id in change.doc_ids} == {"kept", "gone", "replaced"}
    assert texts(reader) == {"kept": "text of kept", "replaced": "version 59 of replaced"}
    assert reader.places["gone"] is None  # it may also lie in the index below


def test_a_window_of_documents_that_come_and_go_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a second for the disk's sake, and no crash is played
    journal, sizes = Journal(tmp_path, smallest_compaction=40_000), []
    for number in range(500):
        journal.append([f"n{number}"], [None], ["x" * 1000], VECTORS[:1], "encoder")
        if number >= 10:
            journal.delete([f"n{number - 10}"])
        sizes.append((tmp_path / LOG).stat().st_size)
    assert max(sizes) < 80_000, max(sizes)  # one of each change would take a megabyte
    assert [*texts(Journal(tmp_path))] == [f"n{number}" for number in range(490, 500)]
    assert (journal.num_living, sum(place is None for place in journal.places.values())) == (10, 490)


def test_a_folder_that_cannot_be_written_is_told_with_the_way_out(tmp_path: Path):
    check_writable(tmp_path / "not" / "yet" / "there")
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "file").touch()
    with pytest.raises(JournalError, match=r"file/documents: added documents cannot be .*writable: false"):
        check_writable(tmp_path / "file" / "documents")


def test_a_full_disk_is_told_and_leaves_nothing_behind(tmp_path: Path):
    import resource

    journal = Journal(tmp_path)
    put(journal, "a")
    size, (soft, hard) = (tmp_path / LOG).stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, hard))  # room for a part of the record
    try:
        with pytest.raises(JournalError, match=r"documents\.log: cannot be written"):
            put(journal, "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / LOG).stat().st_size == size
    put(journal, "c")
    assert texts(Journal(tmp_path)) == {"a": "text of a", "c": "text of c"}


def test_nothing_is_acknowledged_that_was_not_synchronised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    journal = Journal(tmp_path)
    put(journal, "a")

    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(JournalError, match="Input/output error"):
        put(journal, "b")


WRITER = """
import sys
from pathlib import Path
import numpy as np
from ranker.serving.journal import Journal
journal = Journal(Path(sys.argv[1]), smallest_compaction=50_000)
for number in range(100_000):
    name = f"{sys.argv[2]}-{number}"
    journal.append([name, sys.argv[2]], [None, None], ["x" * 500, name], np.ones((2, 4), np.float32), "e")
    print(name, flush=True)
"""


def test_what_was_acknowledged_survives_kill_9_of_two_writers(tmp_path: Path):
    logs = [tmp_path / "one.out", tmp_path / "two.out"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    processes = []
    for log in logs:
        with log.open("w") as stream:
            command = [sys.executable, "-c", WRITER, str(tmp_path / "log"), log.stem]
            processes.append(subprocess.Popen(command, stdout=stream, env=environment))
    try:
        end = time.monotonic() + 120
        while any(log.read_text().count("\n") < 20 for log in logs) and time.monotonic() < end:
            time.sleep(0.02)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
            process.wait()
    acknowledged = [line for log in logs for line in log.read_text().split("\n")[:-1]]
    assert len(acknowledged) >= 40
    journal = Journal(tmp_path / "log")
    found = texts(journal)
    assert [name for name in acknowledged if name not in found] == []
    for log in logs:  # the last version that was acknowledged, or the one that was being written
        *_, last, _ = log.read_text().split("\n")
        assert int(found[log.stem].rpartition("-")[2]) - int(last.rpartition("-")[2]) in (0, 1)
    put(journal, "afterwards")
    assert "afterwards" in texts(Journal(tmp_path / "log"))
