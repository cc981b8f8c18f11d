"""Registry, table types, machine and model names."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ranker.machine import available_cpus, cpu_has_bf16, instruction_sets
from ranker.pretrained import BUNDLED, ModelNotFoundError, resolve
from ranker.registry import Registry, UnknownNameError
from ranker.schemas import CORPUS, QRELS, Collection, SchemaError, document_texts, read_table, require


def test_a_registry_refuses_duplicates_and_lists_the_known() -> None:
    losses: Registry[int] = Registry("loss")
    losses.register("bce")(1)
    losses.register("lce")(2)
    assert dict(losses) == {"bce": 1, "lce": 2}
    with pytest.raises(ValueError, match="'bce' is registered twice"):
        losses.register("bce")(3)
    with pytest.raises(UnknownNameError, match=r"unknown loss 'lcee'; did you mean 'lce'\? known: bce, lce"):
        losses["lcee"]


def test_require_names_missing_columns_and_casts_the_others() -> None:
    with pytest.raises(SchemaError, match=r"qrels: missing columns \['relevance'\]; found \['query_id', 'doc_id'\]"):
        require(pa.table({"query_id": ["q"], "doc_id": ["d"]}), QRELS, "qrels")
    table = require(pa.table({"relevance": [2], "doc_id": ["d"], "query_id": ["q"], "note": ["x"]}), QRELS)
    assert table.column_names == ["query_id", "doc_id", "relevance", "note"]
    assert table.schema.field("relevance").type == pa.int32()
    with pytest.raises(SchemaError, match="column 'relevance' is string, not int32"):
        require(pa.table({"query_id": ["q"], "doc_id": ["d"], "relevance": ["high"]}), QRELS)


def test_a_document_is_read_as_title_and_text() -> None:
    corpus = pa.table({"doc_id": ["1", "2", "3"], "title": ["Dogs", "", None], "text": ["bark", "purr", None]})
    assert document_texts(corpus) == ["Dogs bark", "purr", ""]


def test_a_collection_keeps_only_the_judgements_of_its_queries() -> None:
    collection = Collection(
        "pets",
        "all",
        corpus=pa.table({"doc_id": ["d1", "d2"], "title": ["", ""], "text": ["dog", "cat"]}),
        queries=pa.table({"query_id": ["q1", "q2"], "text": ["bark", "purr"]}),
        qrels=pa.table({"query_id": ["q1", "q2"], "doc_id": ["d1", "d2"], "relevance": [1, 1]}),
    )
    part = collection.with_queries(["q2"], split="test")
    assert part.split == "test"
    assert part.qrels.to_pylist() == [{"query_id": "q2", "doc_id": "d2", "relevance": 1}]
    assert repr(part) == "Collection('pets', split='test', documents=2, queries=1, judgements=1)"


def test_shards_are_read_in_order_and_other_files_are_named(tmp_path: Path) -> None:
    for number in (1, 0):
        table = pa.table({"doc_id": [f"d{number}"], "title": [""], "text": [""]})
        pq.write_table(table, tmp_path / f"part-{number:05d}.parquet")
    assert read_table(tmp_path, CORPUS)["doc_id"].to_pylist() == ["d0", "d1"]
    (tmp_path / "broken.parquet").write_text("no parquet")
    with pytest.raises(SchemaError, match=r"broken\.parquet"):
        read_table(tmp_path / "broken.parquet", CORPUS)
    with pytest.raises(FileNotFoundError, match="run the stage that writes it"):
        read_table(tmp_path / "nowhere.parquet", CORPUS)


def test_instruction_sets_are_read_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nflags : fpu avx2 avx512f amx_bf16\n")
    assert instruction_sets(cpuinfo) == ("avx2", "avx512f", "amx_bf16")
    assert cpu_has_bf16(instruction_sets(cpuinfo))
    assert not cpu_has_bf16(("avx2",))
    assert instruction_sets(tmp_path / "nowhere") == ()
    assert available_cpus() >= 1


def test_model_names(tmp_path: Path, tiny_reranker: str) -> None:
    assert (Path(resolve(BUNDLED)) / "model.safetensors").is_file()
    assert resolve("all-MiniLM-L6-v2") == resolve(BUNDLED)
    assert resolve(tiny_reranker) == tiny_reranker
    assert resolve("bert-base-uncased") == "bert-base-uncased"  # on the hub
    with pytest.raises(ModelNotFoundError, match=r"no such model folder"):
        resolve(tmp_path / "nowhere")
    with pytest.raises(ModelNotFoundError, match=r"not a model folder \(no config\.json\)"):
        resolve(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="no weights"):
        resolve(tmp_path)


def test_a_container_s_limit_is_read_in_both_versions_and_above_the_own_group(tmp_path: Path) -> None:
    own, groups = tmp_path / "own", tmp_path / "groups"
    nested = groups / "kubepods" / "pod"
    nested.mkdir(parents=True)
    own.write_text("0::/kubepods/pod\n")
    assert available_cpus(groups, own) == available_cpus(tmp_path / "none", own)
    (groups / "kubepods" / "cpu.max").write_text("100000 100000\n")
    (nested / "cpu.max").write_text("max 100000\n")
    assert available_cpus(groups, own) == 1
    (groups / "kubepods" / "cpu.max").write_text("20000 100000\n")  # a fifth of a core is one thread all the same
    assert available_cpus(groups, own) == 1
    (groups / "kubepods" / "cpu.max").write_text("150000 100000\n")
    assert available_cpus(groups, own) == 1  # a second thread would be throttled

    first = tmp_path / "v1"
    (first / "cpu,cpuacct" / "docker").mkdir(parents=True)
    own.write_text("4:cpu,cpuacct:/docker\n3:memory:/docker\n")
    (first / "cpu,cpuacct" / "docker" / "cpu.cfs_quota_us").write_text("-1\n")
    (first / "cpu,cpuacct" / "docker" / "cpu.cfs_period_us").write_text("100000\n")
    assert available_cpus(first, own) == available_cpus(tmp_path / "none", own)
    (first / "cpu,cpuacct" / "docker" / "cpu.cfs_quota_us").write_text("100000\n")
    assert available_cpus(first, own) == 1
