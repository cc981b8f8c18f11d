"""04 RAG: index documents of yours, ask, filter, change, save, load. Run 02_training.py first."""

import asyncio
from pathlib import Path

from ranker.rag import RAGPipeline

NOTES = Path("runs/examples/notes")
SAVED = "runs/examples/index"


def write_notes() -> None:
    """A folder of Markdown, as you may have one."""
    NOTES.mkdir(parents=True, exist_ok=True)
    (NOTES / "tea.md").write_text("---\nkind: drink\n---\n# Tea\n\nGreen tea steeps for two minutes at 80 degrees.")
    (NOTES / "bread.md").write_text("---\nkind: food\n---\n# Bread\n\nA loaf bakes for forty minutes at 220 degrees.")
    (NOTES / "rice.txt").write_text("Rice takes twice its volume of water and fifteen minutes.")


def main() -> None:
    """The whole life of an index."""
    write_notes()
    pipeline = RAGPipeline(
        "all-MiniLM-L6-v2", "runs/examples/reranker", top_k_retrieval=10, top_k_rerank=2, hybrid=True
    )
    pipeline.index_documents(NOTES)
    pipeline.add([{"id": "pasta", "text": "Pasta cooks in salted water.", "metadata": {"kind": "food"}}])

    results = pipeline.retrieve_and_rerank("how long does green tea steep")
    for result in results:
        print(result.rank, f"{result.score:.3f}", f"(retrieved at {result.retrieval_rank})", result.id, result.passage)
    print({stage: f"{1000 * seconds:.0f} ms" for stage, seconds in results.times.items()})

    food = pipeline.retrieve_and_rerank("how hot", where={"kind": {"$in": ["food"]}})
    print("only food:", [result.id for result in food])

    pipeline.update([{"id": "pasta", "text": "Fresh pasta cooks for three minutes.", "metadata": {"kind": "food"}}])
    pipeline.delete(["rice.txt"])
    pipeline.save(SAVED)
    again = RAGPipeline.load(SAVED)
    both = asyncio.run(again.aretrieve_and_rerank_many(["fresh pasta", "bake a loaf"]))
    print("after loading:", [[result.id for result in found] for found in both])


if __name__ == "__main__":
    main()
