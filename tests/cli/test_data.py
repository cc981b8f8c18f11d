import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from ranker.cli import app
from ranker.cli.data import matching_ids, named_options
from ranker.cli.inspection import print_inspection, readable_bytes
from ranker.config import ConfigError
from ranker.data.catalog import DATASETS, load_splits
from ranker.data.inspection.report import inspect_source
from ranker.data.paths import open_path

runner = CliRunner()


def dirty(folder: Path) -> Path:
    """One line that is no JSON, one document that is not there, two queries with one text in two splits."""
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "dogs bark"}\n{broken\n{"_id": "2", "text": ""}\n')
    (folder / "queries.jsonl").write_text('{"_id": "a", "text": "Who barks"}\n{"_id": "b", "text": "who  barks"}\n')
    (folder / "qrels" / "train.tsv").write_text("a\t1\t1\na\t9\t1\n")
    (folder / "qrels" / "test.tsv").write_text("b\t1\t0\n")
    return folder


def test_inspect_shows_tables_and_writes_the_same_as_json(pets: Path, tmp_path: Path) -> None:
    file = tmp_path / "pets.json"
    result = runner.invoke(app, ["data", "inspect", str(pets), "--json", str(file)], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["all", "10", "10"] in lines and ["judged", "queries", "6", "2", "2"] in lines
    assert "nothing is wrong" in result.stdout
    written = json.loads(file.read_text())
    assert (written["documents"]["documents"], written["splits"]["train"]["queries"]) == (10, 6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pets.json"]


def test_inspect_of_a_dirty_set_shows_all_and_exits_with_1(tmp_path: Path) -> None:
    command = ["data", "inspect", str(dirty(tmp_path / "set"))]
    result = runner.invoke(app, command, env={"COLUMNS": "200"})
    assert result.exit_code == 1
    words = " ".join(result.stdout.split())
    for said in (
        "documents queries",
        "empty 1 0",
        "empty documents: 1 (2)",
        "queries with the same text as one before: 1 (b = a)",
        "test: queries without a relevant document: 1 (b)",
        "train/test: the two splits share queries or relevant documents",
        "2 mistakes",
        "corpus.jsonl, line 2: not JSON",
        "qrels train: 1 judged doc_id is not in corpus.jsonl: '9'",
    ):
        assert said in words, said
    assert "nothing is wrong" not in words
    narrow = runner.invoke(app, command, env={"COLUMNS": "80"}).stdout
    assert max(map(len, narrow.splitlines())) <= 80


def test_inspect_can_print_json_only(tmp_path: Path) -> None:
    result = runner.invoke(app, ["data", "inspect", str(dirty(tmp_path / "set")), "--json", "-", "--sample", "1"])
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert found["mistakes"]["count"] == 2
    assert found["document_lengths"]["measured"] == 1
    assert found["leakage"] == {
        "train/test": {"query_ids": 0, "query_texts": 1, "relevant_documents": 0, "relevant_texts": 0}
    }


def test_problems_stand_out_and_zeros_do_not(tmp_path: Path) -> None:
    found = inspect_source(open_path(dirty(tmp_path / "set")), tmp_path / "work")
    console = Console(width=100, force_terminal=True, color_system="standard", file=StringIO(), record=True)
    print_inspection(found, console)
    shown = console.export_text(styles=True).splitlines()
    red, yellow, dim = "\x1b[31m", "\x1b[33m", "\x1b[2m"
    missing = next(line for line in shown if line.startswith("judged documents not in the corpus"))
    assert f"{red}    1" in missing and f"{dim}   0" in missing
    assert f"{yellow}        1" in next(line for line in shown if line.startswith("empty"))
    assert any(line.startswith("\x1b[1;31m2 mistakes") for line in shown)
    assert any(line.startswith("\x1b[1;33mWorth a look") for line in shown)


def test_inspect_takes_format_encoding_and_options(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_bytes('{"_id": "1", "text": "café"}\n'.encode("latin-1"))
    (tmp_path / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
    (tmp_path / "qrels" / "test.tsv").write_text("q\t1\t1\nq\t2\t1\n")
    command = ["data", "inspect", str(tmp_path), "--json", "-"]
    plain = json.loads(runner.invoke(app, command).stdout)
    assert plain["mistakes"]["count"] == 2
    assert "not UTF-8" in plain["mistakes"]["some"][0] and plain["mistakes"]["some"][1].startswith("qrels test: 2 ")
    result = runner.invoke(
        app, [*command, "--format", "beir", "--encoding", "latin-1", "--option", "allow_missing=true"]
    )
    assert (result.exit_code, json.loads(result.stdout)["documents"]["documents"]) == (0, 1)
    result = runner.invoke(app, [*command, "--on-invalid", "replace", "--allow-missing"])
    assert (result.exit_code, json.loads(result.stdout)["mistakes"]["count"]) == (0, 0)


def test_what_cannot_be_inspected_is_one_message(pets: Path, tmp_path: Path) -> None:
    for arguments, said in (
        ([str(pets), "--format", "bier"], "did you mean 'beir'"),
        ([str(pets), "--option", "encodin=latin-1"], "encodin: unknown option; did you mean 'encoding'"),
        ([str(pets), "--option", "encoding"], "--option 'encoding': write it as name=value"),
        ([str(pets), "--option", "max_documents=3"], "max_documents: inspect looks through all of"),
        ([str(tmp_path / "nowhere")], "no such file, folder or zip"),
        (["qora"], "did you mean 'quora'"),
    ):
        result = runner.invoke(app, ["data", "inspect", *arguments])
        assert result.exit_code == 1 and said in result.stderr, result.output
        assert result.stderr.startswith("error: ") and result.stdout == ""


def test_a_source_that_makes_its_documents_takes_its_own_limit(tmp_path: Path) -> None:
    rest = "Rows with equal keys keep their order, as the sorting is stable; missing keys go to the very end."
    for name, summary in (("sort", "Sort the rows by several keys."), ("rank", "Number the rows by equal keys.")):
        text = f'def {name}_rows():\n    """{summary}\n\n    {rest} {name.title()} does.\n    """\n'
        (tmp_path / f"{name}.py").write_text(text)
    options = ["--option", f"roots=['{tmp_path}']", "--option", "max_documents=1"]
    result = runner.invoke(app, ["data", "inspect", "pydocs", *options, "--json", "-"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["documents"]["documents"] == 1


def test_convert_writes_another_format_and_says_what(pets: Path, tmp_path: Path) -> None:
    result = runner.invoke(app, ["data", "convert", str(pets), str(tmp_path / "new"), "--to", "parquet"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["format"], told["documents"], told["judgements"]["train"]) == ("parquet", 10, 6)
    assert load_splits(str(tmp_path / "new")).corpus.table() == load_splits(str(pets)).corpus.table()
    sample = ["--max-queries", "1", "--max-documents", "4", "--option", "seed=3", "--format", "beir"]
    result = runner.invoke(app, ["data", "convert", str(pets), str(tmp_path / "few"), "--to", "beir", *sample])
    assert json.loads(result.stdout)["documents"] == 4
    result = runner.invoke(app, ["data", "convert", str(pets), str(tmp_path / "new"), "--to", "beir"])
    assert result.exit_code == 1 and "is there already" in result.stderr


def test_convert_refuses_what_a_format_cannot_say_unless_lossy(pets: Path, tmp_path: Path) -> None:
    command = ["data", "convert", str(pets), str(tmp_path / "new"), "--to", "flagembedding"]
    result = runner.invoke(app, command)
    assert result.exit_code == 1 and "labels [2.0]" in result.stderr
    assert runner.invoke(app, [*command, "--lossy"]).exit_code == 0
    assert (tmp_path / "new" / "train.jsonl").is_file()


def test_convert_allows_missing_documents_when_asked(tmp_path: Path) -> None:
    folder = dirty(tmp_path / "set")
    (folder / "corpus.jsonl").write_text('{"_id": "1", "text": "dogs bark"}\n')
    command = ["data", "convert", str(folder), str(tmp_path / "new"), "--to", "beir"]
    assert "--allow-missing" in runner.invoke(app, command).stderr
    assert runner.invoke(app, [*command, "--allow-missing"]).exit_code == 0


def test_list_names_what_is_registered_and_how_others_are_named() -> None:
    result = runner.invoke(app, ["data", "list"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    for name in DATASETS:
        assert name in result.stdout, name
    assert "MS MARCO passages (arXiv:1611.09268)" in result.stdout
    assert "ir_datasets:ID" in result.stdout and "hf:ORG/NAME" in result.stdout
    assert "ir_datasets:beir" not in result.stdout


def test_list_looks_a_word_up_in_ir_datasets() -> None:
    result = runner.invoke(app, ["data", "list", "SciFact"], env={"COLUMNS": "100"})
    shown = result.stdout.splitlines()
    assert any(line.startswith("beir/scifact") for line in shown)
    assert [line for line in shown if line.startswith("ir_datasets:")] == [
        "ir_datasets:beir/scifact/test",
        "ir_datasets:beir/scifact/train",
        "ir_datasets:nano-beir/scifact",
    ]
    many = runner.invoke(app, ["data", "list", "trec"]).stdout
    listed = [line for line in many.splitlines() if line.startswith("ir_datasets:")]
    assert len(listed) == 50 and f"and {len(matching_ids('trec')) - 50} more" in many
    assert "did you mean 'quora'" in runner.invoke(app, ["data", "list", "qora"]).stdout


def test_listed_ids_have_documents_queries_and_judgements_under_their_newest_name() -> None:
    ids = matching_ids("robust")
    assert "disks45/nocr/trec-robust-2004" in ids
    assert "trec-robust04" not in ids  # its old name
    assert "msmarco-passage" not in matching_ids("msmarco-passage")  # documents only


def test_options_are_read_as_yaml() -> None:
    given = ["max_triples=10", "columns={query: question}", "revision='007'", "path=/a=b"]
    assert named_options(given, encoding="latin-1", format=None) == {
        "max_triples": 10, "columns": {"query": "question"}, "revision": "007", "path": "/a=b", "encoding": "latin-1",
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"--option 'x': write it as name=value\n--option '=3'") as error:
        named_options(["x", "=3", "y={"])
    assert "--option 'y={': the value is not YAML" in str(error.value)


def test_sizes_have_a_unit() -> None:
    assert [readable_bytes(size) for size in (0, 1023, 1536, 3 * 2**30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]
