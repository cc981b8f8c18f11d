"""RAG in one process: speed by stage, recall of each index kind, memory, and beside LangChain with the same models.

`stores`: synthetic unit vectors (a mixture of Gaussians, so that they have neighbourhoods as texts do), in a process a
row: vectors added a second, search of single queries, recall@10 against exact search, and the growth of the process.
`langchain`: the same documents, queries, bi-encoder and cross-encoder in one run, rounds interleaved: LangChain's
ContextualCompressionRetriever over a FAISS-less in-memory vector store with its CrossEncoderReranker, and RAGPipeline.

    python benchmarks/rag.py stores --sizes 10000 1000000
    python benchmarks/rag.py langchain --documents 10000
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIMENSION = 384
K = 10
# Row -> store and options; those that build a graph of a million vectors for an hour are left out above `most`.
KINDS: dict[str, dict[str, Any]] = {
    "faiss Flat": {"store": "faiss", "options": {"factory": "Flat"}},
    "faiss HNSW32, ef_search 128": {"store": "faiss", "most": 10**5,
        "options": {"factory": "HNSW32", "ef_search": 128},
    },
    "faiss IVF1024,Flat, nprobe 32": {
        "store": "faiss", "options": {"factory": "IVF1024,Flat", "nprobe": 32}, "least": 10**5,
    },
    "faiss IVF64,Flat, nprobe 8": {"store": "faiss", "options": {"factory": "IVF64,Flat", "nprobe": 8}, "most": 10**5},
    "faiss IVF1024,SQ8, nprobe 32": {
        "store": "faiss", "options": {"factory": "IVF1024,SQ8", "nprobe": 32}, "least": 10**5,
    },
    "faiss SQ8": {"store": "faiss", "options": {"factory": "SQ8"}},
    "chroma": {"store": "chroma", "options": {}, "most": 10**5},
    "lancedb": {"store": "lancedb", "options": {}},
    "qdrant, in memory": {"store": "qdrant", "options": {}, "most": 10**5},
}  # fmt: skip


def synthetic(size: int, seed: int = 0) -> np.ndarray:
    """Unit vectors (size, DIMENSION) around size / 100 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).normal(size=(max(10, size // 100), DIMENSION)).astype(np.float32)
    vectors = rng.standard_normal(size=(size, DIMENSION), dtype=np.float32)
    vectors += 1.2 * centres[rng.integers(len(centres), size=size)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def memory_mib() -> float:
    """What this process holds now."""
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * resource.getpagesize() / 2**20


def one_store(kind: str, size: int, num_queries: int) -> dict[str, float]:
    """Build, ask, compare with exact search; in a process of its own."""
    from ranker.retrieval.stores import STORES

    vectors, queries = synthetic(size), synthetic(num_queries, seed=1)
    ids, before = [str(number) for number in range(size)], memory_mib()
    start = time.perf_counter()
    store = STORES[KINDS[kind]["store"]](DIMENSION, **KINDS[kind]["options"])
    first = min(size, 50_000)  # trains the index where there is something to train
    for begin in range(0, size, first):
        store.add(ids[begin : begin + first], vectors[begin : begin + first])
    seconds, grown = time.perf_counter() - start, memory_mib() - before
    store.search(queries[:2], K)
    found, waits = [], []
    for query in queries:
        begin = time.perf_counter()
        found.append(store.search(query[None], K)[0][0])
        waits.append(1000 * (time.perf_counter() - begin))
    exact = [np.argpartition(-(vectors @ query), K)[:K] for query in queries]
    hits = [len({str(one) for one in best} & set(names)) / K for best, names in zip(exact, found, strict=True)]
    return {
        "added": size / seconds, "p50": statistics.median(waits), "p95": float(np.percentile(waits, 95)),
        "recall": statistics.mean(hits), "mib": grown,
    }  # fmt: skip


def stores(sizes: Sequence[int], num_queries: int) -> None:
    """One row a size and kind."""
    print("| vectors | index | added a second | search, p50 | p95 | recall@10 | memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for size in sizes:
        for kind, about in KINDS.items():
            if not about.get("least", 0) <= size <= about.get("most", size):
                continue
            command = [sys.executable, __file__, "--run", kind, str(size), str(num_queries)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"| {size:,} | {kind} | failed: {done.stderr.strip().splitlines()[-1][:100]} | | | | |")
                continue
            row = json.loads(done.stdout.splitlines()[-1])
            print(
                f"| {size:,} | {kind} | {row['added']:,.0f} | {row['p50']:.2f} ms | {row['p95']:.2f} ms "
                f"| {row['recall']:.3f} | {row['mib']:,.0f} |",
                flush=True,
            )


def texts_and_queries(documents: int, queries: int) -> tuple[list[str], list[str]]:
    """Docstrings of the installed packages, and questions on them."""
    from ranker.data import load

    collection = load("pydocs", "train", max_documents=documents)
    return list(collection.texts().values())[:documents], collection.queries["text"].to_pylist()[:queries]


Contestant = tuple[Callable[[str], Any], Callable[[str], Any], Callable[[str, Any], Any]]


def with_langchain(retriever: str, reranker: str, texts: list[str], top: int, kept: int, length: int) -> Any:
    """LangChain's own parts around sentence-transformers, as its documentation puts them together."""
    from langchain_classic.retrievers import ContextualCompressionRetriever
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_classic.retrievers.document_compressors.cross_encoder import BaseCrossEncoder
    from langchain_core.embeddings import Embeddings
    from langchain_core.vectorstores import InMemoryVectorStore
    from sentence_transformers import CrossEncoder, SentenceTransformer

    class Encoding(Embeddings):  # what langchain_huggingface.HuggingFaceEmbeddings does
        def __init__(self) -> None:
            self.model = SentenceTransformer(retriever, device="cpu")
            self.model.max_seq_length = 256

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False).tolist()

        def embed_query(self, text: str) -> list[float]:
            return self.embed_documents([text])[0]

    class Scoring(BaseCrossEncoder):  # what langchain_community's HuggingFaceCrossEncoder does
        def __init__(self) -> None:
            self.model = CrossEncoder(reranker, device="cpu", max_length=length)

        def score(self, text_pairs: list[tuple[str, str]]) -> Any:
            return self.model.predict(text_pairs, show_progress_bar=False)

    store = InMemoryVectorStore(Encoding())
    start = time.perf_counter()
    store.add_texts(texts)
    seconds = time.perf_counter() - start
    base = store.as_retriever(search_kwargs={"k": top})
    compressor = CrossEncoderReranker(model=Scoring(), top_n=kept)
    whole = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=base)
    embedding = store.embedding
    stages = {
        "encode": lambda query, _: embedding.embed_query(query),
        "encode and search": lambda query, _: base.invoke(query),
        "rerank": lambda query, found: compressor.compress_documents(found, query),
        "whole": lambda query, _: whole.invoke(query),
    }
    return seconds, stages, lambda query: base.invoke(query), lambda found: [one.page_content for one in found]


def with_ranker(retriever: str, reranker: str, texts: list[str], top: int, kept: int, length: int) -> Any:
    """The same in RAGPipeline; documents stay whole, as there."""
    from ranker.config import ScoringConfig
    from ranker.rag import RAGPipeline

    scoring = ScoringConfig(precision="fp32", max_length=length)
    pipeline = RAGPipeline(retriever, reranker, top, kept, chunk_tokens=0, scoring=scoring, device="cpu")
    start = time.perf_counter()
    pipeline.index_documents(texts)
    seconds = time.perf_counter() - start
    stages = {
        "encode": lambda query, _: pipeline.encoder.encode_queries([query]),
        "encode and search": lambda query, _: pipeline.retrieve(query),
        "rerank": lambda query, found: pipeline.rerank(query, found),
        "whole": lambda query, _: pipeline.retrieve_and_rerank(query),
    }
    return seconds, stages, lambda query: pipeline.retrieve(query), lambda found: [one.text for one in found]


def langchain(arguments: argparse.Namespace) -> None:
    """Both in one process, rounds interleaved."""
    from scoring import with_random_head

    from ranker.pretrained import BUNDLED, resolve

    texts, queries = texts_and_queries(arguments.documents, arguments.queries)
    with tempfile.TemporaryDirectory() as folder:
        reranker = resolve(arguments.model) if arguments.model else folder
        if not arguments.model:
            with_random_head(Path(folder))
        settings = (resolve(BUNDLED), reranker, texts, arguments.top, arguments.kept, arguments.max_length)
        contestants = {"LangChain": with_langchain(*settings), "ranker": with_ranker(*settings)}
        waits: dict[tuple[str, str], list[float]] = {}
        same = []
        for number, query in enumerate(queries):
            answers = []
            for name, (_, stages, candidates, texts_of) in contestants.items():
                found = candidates(query)
                for stage, run in stages.items():
                    start = time.perf_counter()
                    answer = run(query, found)
                    if number:  # the first warms up
                        waits.setdefault((name, stage), []).append(1000 * (time.perf_counter() - start))
                answers.append(texts_of(answer))
            same.append(answers[0] == answers[1])
    print(f"{len(texts):,} documents, {len(queries) - 1} queries, {arguments.top} candidates, {arguments.kept} kept, "
          f"pairs of at most {arguments.max_length} tokens; the same list for {sum(same)} of {len(same)}")  # fmt: skip
    print("\n| stage | LangChain | ranker | times |\n|---|---|---|---|")
    slow, fast = (len(texts) / contestants[name][0] for name in ("LangChain", "ranker"))
    print(f"| documents indexed a second | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} |")
    for stage in ("encode", "encode and search", "rerank", "whole"):
        peer, own = (statistics.median(waits[name, stage]) for name in ("LangChain", "ranker"))
        print(f"| {stage}, p50 | {peer:.1f} ms | {own:.1f} ms | {peer / own:.2f} |")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="?", choices=["stores", "langchain"], default="stores")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--kept", type=int, default=5)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--model", help="cross-encoder; none: the bundled backbone with a seeded random head")
    parser.add_argument("--run", nargs=3, metavar=("KIND", "SIZE", "QUERIES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        print(json.dumps(one_store(given.run[0], int(given.run[1]), int(given.run[2]))))
    elif given.what == "stores":
        stores(given.sizes, given.queries)
    else:
        langchain(given)


if __name__ == "__main__":
    main()
