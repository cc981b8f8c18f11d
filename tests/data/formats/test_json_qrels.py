import json
from pathlib import Path

import pytest

from ranker.data.catalog import load_splits
from ranker.data.errors import DataError, Mistakes
from ranker.data.files import DataFile
from ranker.data.formats.json_qrels import read_json_qrels

YAML = """---
configs:
- config_name: default
  data_files:
  - split: test
    path: qrels/test.jsonl
- config_name: corpus
  data_files:
  - split: corpus
    path: corpus.jsonl
- config_name: queries
  data_files:
  - split: queries
    path: queries.jsonl
---
"""


def lines(path: Path, *records: object) -> DataFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return DataFile(path.name, str(path))


def test_a_data_set_of_mteb_keeps_its_judgements_in_json(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(YAML)
    lines(tmp_path / "corpus.jsonl", {"_id": "007", "title": "", "text": "canaries"}, {"_id": "7", "text": "owls"})
    lines(tmp_path / "queries.jsonl", {"_id": "1e5", "text": "who sings"})
    judged = ({"query-id": "1e5", "corpus-id": "007", "score": 2.0}, {"query-id": "1e5", "corpus-id": "7", "score": -1})
    lines(tmp_path / "qrels" / "test.jsonl", *judged)
    assert load_splits(str(tmp_path)).qrels["test"].to_pylist() == [
        {"query_id": "1e5", "doc_id": "007", "relevance": 2},
        {"query_id": "1e5", "doc_id": "7", "relevance": -1},
    ]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"corpus-id": "7", "score": 1}, 'no "query-id" among'),
        ({"query-id": "1", "corpus-id": None, "score": 1}, "corpus-id is None"),
        ({"query-id": "1", "corpus-id": "7", "score": 0.5}, '"score" is 0.5; it must be a whole number'),
        ({"query-id": "1", "corpus-id": "7", "score": float("nan")}, '"score" is nan'),
        ({"query-id": "1", "corpus-id": "7", "score": True}, '"score" is True'),
        ({"query-id": "1", "corpus-id": "007", "score": 3}, "has score 3 here and 1 at"),
    ],
)
def test_what_is_wrong_names_line_and_value(record: object, problem: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "test.jsonl", {"query-id": 1, "corpus-id": "007", "score": 1}, record)
    mistakes = Mistakes("here")
    assert read_json_qrels(file, mistakes).to_pylist() == [{"query_id": "1", "doc_id": "007", "relevance": 1}]
    with pytest.raises(DataError, match=f"1 mistake\n.*test.jsonl, line 2: .*{problem}"):
        mistakes.raise_if_any()
