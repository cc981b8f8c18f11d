"""What benchmarks/mining.py reads: collections in BEIR layout, a small random encoder; and how results are compared."""

import argparse
import json
import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

WORDS, WORDS_A_PASSAGE, WORDS_A_QUERY = 20_000, 40, 8  # a passage has at most so many
HIDDEN = 64
GIVEN = ("precision", "workers", "negatives", "depth", "margin", "repeat", "wait", "compared")


def arguments(about: str, systems: list[str]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--source", default="data/medquad.zip", help="any source of documents that ranker reads")
    parser.add_argument("--documents", type=int, help="a seeded sample of so many documents of the source")
    parser.add_argument("--queries", type=int, help="train queries; synthetic ones: 10,000 unless it is said")
    parser.add_argument("--sizes", type=int, nargs="+", default=[], help="synthetic corpora instead")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="not for synthetic corpora")
    parser.add_argument("--precision", default="auto", help="of this project; the peer's is the model's own")
    parser.add_argument("--workers", type=int, default=2, help="encoder actors of one core")
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--depth", type=int, default=100, help="range_max of both")
    parser.add_argument("--margin", type=float, default=0.05, help="relative_margin of both")
    parser.add_argument("--compared", type=int, default=2000, help="queries whose ten nearest documents are compared")
    parser.add_argument("--systems", nargs="+", default=systems[:2], choices=systems)
    parser.add_argument("--nodes", action="store_true", help="one raylet of one core, then two, instead of the peer")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--wait", type=float, default=0.0, help="seconds to wait for an idle machine before each run")
    parser.add_argument("--folder", type=Path, help="keep everything here")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    return parser


def collections(given: argparse.Namespace, root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Folders in BEIR layout, made where they are not there yet, and what each run on them is given."""
    plain = {name: getattr(given, name) for name in GIVEN}
    if given.sizes:
        queries, model = given.queries or 10_000, root / "tiny-encoder"
        folders = [root / f"synthetic-{size}-{queries}" for size in given.sizes]
        for folder, size in zip(folders, given.sizes, strict=True):
            if not folder.exists():
                _write(folder, *_synthetic(size, queries))
        if not model.exists():
            make_encoder(model)
    else:
        from ranker.pretrained import resolve

        model = Path(resolve(given.model))
        folders = [root / f"{Path(given.source).stem}-{given.documents or 'all'}-{given.queries or 'all'}"]
        if not folders[0].exists():
            _write(folders[0], *_sampled(given.source, given.documents, given.queries, root))
    return [(folder, {**plain, "model": str(model), "most_positives": _most_positives(folder)}) for folder in folders]


def _words() -> list[str]:
    rng = random.Random(5)
    return sorted({"".join(rng.choices("abcdefghijklmnoprstuvwz", k=3 + n % 6)) for n in range(2 * WORDS)})[:WORDS]


def _synthetic(size: int, num_queries: int) -> tuple[Iterator[tuple[str, str]], list[tuple[str, str, list[str]]]]:
    """Passages of a Zipf vocabulary, and queries of some words of the passage that answers them."""
    words, rng = np.array(_words()), np.random.default_rng(size)
    rng.shuffle(words)
    answers = {
        int(row): number for number, row in enumerate(rng.choice(size, size=min(size, num_queries), replace=False))
    }
    queries: list[tuple[str, str, list[str]]] = []

    def documents() -> Iterator[tuple[str, str]]:
        for start in range(0, size, 20_000):
            picks = (WORDS ** rng.random((min(20_000, size - start), WORDS_A_PASSAGE))).astype(np.int64) - 1  # Zipf's
            lengths = rng.integers(WORDS_A_QUERY, WORDS_A_PASSAGE, len(picks))
            for row, (pick, length) in enumerate(zip(picks, lengths, strict=True), start):
                if row in answers:
                    asked = rng.choice(pick[:length], WORDS_A_QUERY, replace=False)
                    queries.append((f"q{answers[row]}", " ".join(words[asked]), [f"{row:08d}"]))
                yield f"{row:08d}", " ".join(words[pick[:length]])

    return documents(), queries


def _sampled(
    source: str, num_documents: int | None, num_queries: int | None, root: Path
) -> tuple[list[tuple[str, str]], list[tuple[str, str, list[str]]]]:
    """A seeded sample of the documents of a source, and the train queries that all their answers are left of."""
    from ranker.data.catalog import load
    from ranker.schemas import document_texts

    os.environ.setdefault("RANKER_HOME", str(root / "cache"))
    train = load(source, "train")
    corpus = train.documents.table()
    rows = sorted(random.Random(13).sample(range(len(corpus)), min(num_documents or len(corpus), len(corpus))))
    some = corpus.take(rows)
    texts = dict(zip(some["doc_id"].to_pylist(), document_texts(some), strict=True))
    answers = defaultdict(list)
    for judged in train.relevant().to_pylist():
        answers[judged["query_id"]].append(judged["doc_id"])
    queries = [
        (query["query_id"], query["text"], answers[query["query_id"]])
        for query in train.queries.to_pylist()
        if query["query_id"] in answers and all(doc_id in texts for doc_id in answers[query["query_id"]])
    ]
    return list(texts.items()), queries[:num_queries]


def _write(folder: Path, documents: Any, queries: list[tuple[str, str, list[str]]]) -> None:
    """BEIR layout. Dev and test each hold one judgement that nothing answers: nothing is kept back for them."""
    work = folder.with_name(f".{folder.name}")
    (work / "qrels").mkdir(parents=True, exist_ok=True)
    with (work / "corpus.jsonl").open("w") as stream:
        for doc_id, text in documents:
            stream.write(json.dumps({"_id": doc_id, "title": "", "text": text}) + "\n")
    first = next(iter(read_texts(work)))
    judged = {
        "train": [(query_id, doc_id, 1) for query_id, _, answers in queries for doc_id in answers],
        "dev": [("dev", first, 0)],
        "test": [("test", first, 0)],
    }
    for split, rows in judged.items():
        lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, row)) for row in rows)]
        (work / "qrels" / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    texts = [*((query_id, text) for query_id, text, _ in queries), ("dev", "nothing"), ("test", "nothing")]
    lines = [json.dumps({"_id": query_id, "text": text}) for query_id, text in texts]
    (work / "queries.jsonl").write_text("\n".join(lines) + "\n")
    work.rename(folder)


def make_encoder(folder: Path) -> None:
    """A random BERT of one layer over the synthetic words, with mean pooling, as a sentence-transformers folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    vocabulary = {token: number for number, token in enumerate([*special.values(), *_words()])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, model_input_names=names, **special)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=4,
        intermediate_size=2 * HIDDEN, max_position_embeddings=64,
    )  # fmt: skip
    backbone = folder / "backbone"
    model = BertModel(config).eval()
    with torch.no_grad():  # words count and places do not, so that a query is near the passage that it was taken from
        model.embeddings.word_embeddings.weight.normal_()[: len(special)] = 0
        model.embeddings.position_embeddings.weight.zero_()
        model.embeddings.token_type_embeddings.weight.zero_()
    model.save_pretrained(backbone)
    fast.save_pretrained(backbone)
    body = Transformer(str(backbone), max_seq_length=64)
    SentenceTransformer(modules=[body, Pooling(HIDDEN, "mean")], device="cpu").save(str(folder))


def _lines(file: Path) -> Iterator[dict[str, str]]:
    with file.open() as stream:
        yield from map(json.loads, stream)


def read_texts(folder: Path) -> dict[str, str]:
    """doc_id -> text, as :func:`ranker.schemas.document_texts` gives it."""
    return {line["_id"]: f"{line['title']} {line['text']}".strip() for line in _lines(folder / "corpus.jsonl")}


def read_pairs(folder: Path) -> list[tuple[str, str]]:
    """(query, text that answers it) of the train split, in the order of the judgements."""
    documents = read_texts(folder)
    queries = {line["_id"]: line["text"] for line in _lines(folder / "queries.jsonl")}
    rows = [line.split("\t") for line in (folder / "qrels" / "train.tsv").read_text().splitlines()[1:]]
    return [(queries[query_id], documents[doc_id]) for query_id, doc_id, _ in rows]


def count(file: Path) -> int:
    """Lines of a file."""
    with file.open() as stream:
        return sum(1 for _ in stream)


def _most_positives(folder: Path) -> int:
    answers = defaultdict(set)
    for query, text in read_pairs(folder):
        answers[query].add(text)
    return max(map(len, answers.values()))


def agreement(folder: Path, ours: Path, theirs: Path, given: dict[str, Any], top: int) -> str:
    """Queries that got the same negatives on both sides, and queries whose ``top`` nearest texts are the same."""
    one, other = _negatives(ours / "mine" / "groups.parquet"), _negatives(theirs / "groups.parquet")
    same = sum(one.get(query) == other.get(query) for query in one.keys() | other.keys())
    total = len(one.keys() | other.keys())
    documents, pairs = read_texts(folder), read_pairs(folder)
    queries = list(dict.fromkeys(query for query, _ in pairs))
    rows = sorted(random.Random(13).sample(range(len(queries)), min(given["compared"], len(queries))))
    nearest = [_nearest_here(ours, [queries[row] for row in rows], documents, top)]
    corpus = list(dict.fromkeys([*documents.values(), *(text for _, text in pairs)]))  # as the peer has it
    nearest.append(_nearest_there(theirs, rows, corpus, top))
    equal = sum(a == b for a, b in zip(*nearest, strict=True))
    return (
        f"the same negatives for {same / total:.2%} of {total:,} queries, "
        f"the same {top} nearest texts for {equal / len(rows):.2%} of {len(rows):,}"
    )


def _negatives(file: Path) -> dict[str, set[str]]:
    import pyarrow.parquet as pq

    table, found = pq.read_table(file), defaultdict(set)
    texts = "documents" if "documents" in table.column_names else "positive"  # what the peer calls the whole list
    for row in table.select(["query", texts, "labels"]).to_pylist():
        found[row["query"]].update(t for t, label in zip(row[texts], row["labels"], strict=True) if not label)
    return found


def _nearest_here(out: Path, queries: Sequence[str], documents: dict[str, str], top: int) -> list[set[str]]:
    import pyarrow as pa

    from ranker.retrieval.search import search_index

    ids = [f"{number:08d}" for number in range(len(queries))]
    run = search_index(out / "index", pa.table({"query_id": ids, "text": list(queries)}), 4 * top)
    found: dict[str, dict[str, None]] = {query_id: {} for query_id in ids}
    for query_id, doc_id in zip(run["query_id"].to_pylist(), run["doc_id"].to_pylist(), strict=True):
        found[query_id][documents[doc_id]] = None  # copies of a text count once, as with the peer
    return [set(list(texts)[:top]) for texts in found.values()]


def _nearest_there(out: Path, rows: Sequence[int], corpus: Sequence[str], top: int) -> list[set[str]]:
    import faiss

    vectors = np.load(out / "encode_document.npy")
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    _, keys = index.search(np.load(out / "encode_query.npy")[list(rows)], top)
    return [{corpus[key] for key in found} for found in keys.tolist()]
