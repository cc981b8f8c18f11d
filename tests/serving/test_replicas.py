"""The deployments' classes with real models, in this process."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ranker.config import ScoringConfig
from ranker.manifest import StageError
from ranker.serving.deployments import RerankerReplica, RetrieverReplica
from ranker.serving.engine import ModelEngine
from ranker.serving.errors import UnknownModelError, WriteError
from ranker.serving.journal import Journal, JournalError
from ranker.serving.live_index import Document, LiveIndex

SCORING = ScoringConfig(precision="fp32").model_dump()
LONG = "a dog barks at strangers and guards the house at night"


def test_several_models_score_by_name_and_cut_as_asked(tiny_reranker: str):
    async def told() -> None:
        reranker = RerankerReplica(SCORING, shares_cores=False)
        with pytest.raises(RuntimeError, match="nothing is loaded"):
            await reranker.score("q", ["d"])
        await reranker.reconfigure({"models": {"pets": tiny_reranker, "again": tiny_reranker}})
        whole = await reranker.score("who barks", [LONG])
        assert (whole.model, (await reranker.score("who barks", [LONG], model="again")).model) == ("pets", "again")
        cut = await reranker.score("who barks", [LONG], model="again", max_tokens=3)
        assert cut.logits == pytest.approx((await reranker.score("who barks", ["a dog barks"])).logits, abs=1e-6)
        assert cut.tokens == whole.tokens - len(LONG.split()) + 3
        with pytest.raises(UnknownModelError, match="there are: pets, again"):
            await reranker.score("q", ["d"], model="secret words")
        described = await reranker.describe()
        assert (described["models"], described["change"]) == (["pets", "again"], "done")
        await reranker.check_health()

    asyncio.run(told())


def test_the_gauges_count_all_models_also_after_a_change(tiny_reranker: str, tmp_path: Path, monkeypatch):
    other = shutil.copytree(tiny_reranker, tmp_path / "other")

    async def story() -> None:
        reranker = RerankerReplica(SCORING, shares_cores=False)
        await reranker.reconfigure({"models": {"pets": tiny_reranker}})
        await reranker.reconfigure({"models": {"pets": tiny_reranker, "other": str(other)}})
        await reranker._models.settled()
        monkeypatch.setattr(ModelEngine, "pending_tokens", 7)
        monkeypatch.setattr(ModelEngine, "depth", 2)
        told = reranker._metrics.registry.get_sample_value
        assert (told("ranker_pending_tokens"), told("ranker_queue_requests")) == (14, 4)

    asyncio.run(story())


def test_documents_change_while_queries_run(experiment: Path, tmp_path: Path):
    runs = experiment.parent / "runs"

    async def told() -> None:
        retriever = RetrieverReplica(str(tmp_path / "documents"))
        await retriever.reconfigure({"index": str(runs / "index"), "corpus": str(runs / "data")})
        documents = [Document(f"n{number}", None, f"{LONG} {number}") for number in range(40)]
        changed, *found = await asyncio.gather(
            retriever.change(documents, []), *(retriever.retrieve("who barks", 5) for _ in range(20))
        )
        assert (changed.added, changed.replaced, changed.documents) == (40, 0, 50)
        assert all(len(neighbours) == 5 for neighbours in found)
        again = await retriever.change([*documents[:2], documents[0]], ["n39", "n39", "nobody"])
        assert (again.added, again.replaced, again.deleted, again.documents) == (0, 2, 1, 49)
        best = await retriever.retrieve(f"{LONG} 7", 1)
        assert best[0].doc_id.startswith("n") and (await retriever.get("n39")) is None
        assert (await retriever.describe())["added"] == 39

    asyncio.run(told())


def test_what_cannot_be_written_is_told_without_its_text(experiment: Path, tmp_path: Path, caplog):
    runs = experiment.parent / "runs"

    async def told() -> None:
        retriever = RetrieverReplica(str(tmp_path / "documents"))
        await retriever.reconfigure({"index": str(runs / "index"), "corpus": str(runs / "data")})
        (tmp_path / "documents").write_text("a file where a folder should be")
        with pytest.raises(WriteError, match="could not be written"):
            await retriever.change([Document("d", None, "xylophone")], [])

    asyncio.run(told())
    assert "documents.log: cannot be" in caplog.text and "xylophone" not in caplog.text


def test_the_retriever_counts_for_metrics(experiment: Path, tmp_path: Path, monkeypatch):
    runs = experiment.parent / "runs"
    monkeypatch.setattr("ranker.serving.deployments.replica_name", lambda: "r1")

    async def told() -> dict[str, float]:
        retriever = RetrieverReplica(str(tmp_path / "documents"))
        await retriever.reconfigure({"index": str(runs / "index"), "corpus": str(runs / "data")})
        for _ in range(3):
            await retriever.retrieve("who barks", 5)
        samples = [sample for family in await retriever.metrics() for sample in family.samples]
        assert {(s.labels["deployment"], s.labels["replica"]) for s in samples} == {("Retriever", "r1")}
        return {s.name: s.value for s in samples if "le" not in s.labels}

    found = asyncio.run(told())
    assert found["ranker_retrievals_total"] == 3
    for part in ("encode", "search"):
        assert found[f"ranker_{part}_seconds_count"] == 3 and 0 < found[f"ranker_{part}_seconds_sum"] < 10


def test_a_log_that_cannot_be_written_stops_the_start_unless_nothing_is_written(tmp_path: Path):
    (tmp_path / "documents").touch()
    with pytest.raises(JournalError, match="writable: false"):
        RetrieverReplica(str(tmp_path / "documents"))
    RetrieverReplica(str(tmp_path / "documents"), False)


def test_a_log_that_is_left_behind_by_another_place_of_the_index_is_told(experiment: Path, tmp_path: Path, caplog):
    old, runs = tmp_path / "2026-10", experiment.parent / "runs"
    shutil.copytree(runs, tmp_path / "2026-11")
    Journal(old / "documents").delete(["a"])

    async def told(documents: Path) -> str:
        caplog.clear()
        retriever = RetrieverReplica(str(documents))
        await retriever.reconfigure({name: str(tmp_path / "2026-11" / folder) for name, folder in
                                     (("index", "index"), ("corpus", "data"))})  # fmt: skip
        return caplog.text

    assert str(old / "documents" / "documents.log") in asyncio.run(told(tmp_path / "2026-11" / "documents"))
    assert "are not read" not in asyncio.run(told(old / "documents"))


def test_an_encoder_is_read_from_safetensors_only(experiment: Path, tmp_path: Path, monkeypatch):
    import sentence_transformers

    seen, real = [], sentence_transformers.SentenceTransformer

    def recorded(*args, **options):
        seen.append(options["model_kwargs"].get("use_safetensors"))
        return real(*args, **options)

    monkeypatch.setattr(sentence_transformers, "SentenceTransformer", recorded)
    runs = experiment.parent / "runs"
    LiveIndex(runs / "index", runs / "data", tmp_path / "documents")
    assert seen == [True]


def test_a_model_that_would_be_unpickled_is_not_loaded_instead(tiny_reranker: str, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_reranker, folder)
    (folder / "module").mkdir()
    (folder / "module" / "pytorch_model.bin").write_bytes(b"")

    async def told() -> None:
        reranker = RerankerReplica(SCORING, shares_cores=False)
        with pytest.raises(StageError, match="as a pickle"):
            await reranker.reconfigure({"models": {"pets": str(folder)}})
        await reranker.reconfigure({"models": {"pets": tiny_reranker}})
        await reranker.reconfigure({"models": {"pets": str(folder)}})
        await reranker._models.settled()
        assert "as a pickle" in (await reranker.describe())["change"]
        assert (await reranker.score("q", ["d"])).model == "pets"

    asyncio.run(told())
