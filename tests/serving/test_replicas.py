"""The deployments' classes with real models, in this process."""

import asyncio
import shutil
from pathlib import Path

import pytest

from ranker.config import ScoringConfig
from ranker.manifest import StageError
from ranker.serving.deployments import RerankerReplica, RetrieverReplica
from ranker.serving.errors import UnknownModelError, WriteError
from ranker.serving.live_index import Document

SCORING = ScoringConfig(precision="fp32").model_dump()
LONG = "a dog barks at strangers and guards the house at night"


def test_several_models_score_by_name_and_cut_as_asked(tiny_reranker: str):
    async def told() -> None:
        reranker = RerankerReplica(SCORING)
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


def test_a_model_that_would_be_unpickled_is_not_loaded_instead(tiny_reranker: str, tmp_path: Path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_reranker, folder)
    (folder / "module").mkdir()
    (folder / "module" / "pytorch_model.bin").write_bytes(b"")

    async def told() -> None:
        reranker = RerankerReplica(SCORING)
        with pytest.raises(StageError, match="as a pickle"):
            await reranker.reconfigure({"models": {"pets": str(folder)}})
        await reranker.reconfigure({"models": {"pets": tiny_reranker}})
        await reranker.reconfigure({"models": {"pets": str(folder)}})
        await reranker._models.settled()
        assert "as a pickle" in (await reranker.describe())["change"]
        assert (await reranker.score("q", ["d"])).model == "pets"

    asyncio.run(told())
