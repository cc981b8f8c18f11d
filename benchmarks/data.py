"""From files to training groups: memory and speed against the size of the corpus, beside `datasets` and plain Python.

Every system does the same: read corpus.jsonl, queries.jsonl and qrels, give every query its relevant passage and seven
random ones, and write the groups with their texts. The number of queries is the same for every size, so that what grows
is the corpus. Each run is a process of its own whose tree is watched from outside: the proportional set size (PSS, so
that shared pages are counted once) of the tree, and of its largest process. "ranker, Ray" starts a local cluster of
workers even where this process alone would be chosen; what that cluster itself takes is in its row.

    python benchmarks/data.py --sizes 100000 1000000 5000000 --repeat 3
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

NEGATIVES = 7
WORDS_A_PASSAGE = 56  # MS MARCO's mean
MIB = 2**20


def make_collection(folder: Path, size: int, num_queries: int) -> None:
    """A collection in BEIR layout: passages of a Zipf vocabulary, and queries with one relevant passage each."""
    rng, words = np.random.default_rng(size), [f"w{n:05d}"[: 3 + n % 6] + str(n) for n in range(30_000)]
    (folder / "qrels").mkdir(parents=True)
    with (folder / "corpus.jsonl").open("w") as stream:
        for start in range(0, size, 20_000):
            count = min(20_000, size - start)
            lengths = rng.poisson(WORDS_A_PASSAGE, count)
            picks = np.minimum(rng.zipf(1.2, int(lengths.sum())), len(words)) - 1
            ends = np.cumsum(lengths)
            for row, (low, high) in enumerate(zip(ends - lengths, ends, strict=True)):
                text = " ".join(words[pick] for pick in picks[low:high])
                stream.write(json.dumps({"_id": f"{start + row:08d}", "title": "", "text": text}) + "\n")
    with (folder / "queries.jsonl").open("w") as queries, (folder / "qrels" / "train.tsv").open("w") as qrels:
        qrels.write("query-id\tcorpus-id\tscore\n")
        for number in range(num_queries):
            queries.write(json.dumps({"_id": f"q{number:07d}", "text": f"question {number} about w{number}"}) + "\n")
            qrels.write(f"q{number:07d}\t{int(rng.integers(size)):08d}\t1\n")


def with_ranker(folder: Path, out: Path) -> int:
    """This project: the stored form, then groups that are written a bucket at a time."""
    from ranker.data import DataPreprocessor
    from ranker.data.paths import open_path
    from ranker.data.store import store_source

    (out / "data").mkdir(parents=True)
    train = store_source(open_path(folder), out / "data").collection("train")
    parts = DataPreprocessor().write_groups(train, out / "groups", NEGATIVES)
    return len(parts)


def with_ranker_on_ray(folder: Path, out: Path) -> int:
    """The same on Ray Data, one cluster for all of it."""
    from ranker.config import RayConfig
    from ranker.data import spread
    from ranker.session import connected

    spread.WORTH_JOINING_BYTES = 0
    with connected(RayConfig()):
        return with_ranker(folder, out)


def with_datasets(folder: Path, out: Path) -> int:
    """`datasets`: memory-mapped Arrow, an index of ids in memory, groups from a generator to Parquet."""
    from datasets import Dataset, Features, Value, disable_progress_bars, load_dataset

    disable_progress_bars()
    cache = str(out / "cache")
    corpus = load_dataset("json", data_files=str(folder / "corpus.jsonl"), split="train", cache_dir=cache)
    queries = load_dataset("json", data_files=str(folder / "queries.jsonl"), split="train", cache_dir=cache)
    qrels = load_dataset("csv", data_files=str(folder / "qrels/train.tsv"), delimiter="\t", split="train",
                         cache_dir=cache, column_names=["q", "d", "s"], skiprows=1,
                         features=Features({name: Value("string") for name in "qds"}))  # fmt: skip
    row_of = {doc_id: row for row, doc_id in enumerate(corpus["_id"])}
    text_of_query = dict(zip(queries["_id"], queries["text"], strict=True))
    rng = random.Random(13)

    def groups():
        for row in qrels:
            rows = [row_of[row["d"]], *rng.sample(range(len(corpus)), NEGATIVES)]
            documents = [corpus[number]["text"] for number in rows]
            yield {"query": text_of_query[row["q"]], "documents": documents, "labels": [1.0] + [0.0] * NEGATIVES}

    return Dataset.from_generator(groups, cache_dir=cache).to_parquet(str(out / "groups.parquet"))


def with_python(folder: Path, out: Path) -> int:
    """Plain Python: the corpus in a dict, groups to a JSONL file."""
    out.mkdir(parents=True)
    texts = {}
    with (folder / "corpus.jsonl").open() as stream:
        for line in stream:
            record = json.loads(line)
            texts[record["_id"]] = record["text"]
    with (folder / "queries.jsonl").open() as stream:
        queries = {record["_id"]: record["text"] for record in map(json.loads, stream)}
    ids, rng = list(texts), random.Random(13)
    with (folder / "qrels/train.tsv").open() as stream, (out / "groups.jsonl").open("w") as target:
        next(stream)
        for line in stream:
            query_id, doc_id, _ = line.rstrip("\n").split("\t")
            documents = [texts[doc_id], *(texts[ids[rng.randrange(len(ids))]] for _ in range(NEGATIVES))]
            group = {"query": queries[query_id], "documents": documents, "labels": [1.0] + [0.0] * NEGATIVES}
            target.write(json.dumps(group) + "\n")
    return len(ids)


SYSTEMS: dict[str, Callable[[Path, Path], int]] = {
    "ranker": with_ranker, "ranker, Ray": with_ranker_on_ray, "datasets": with_datasets, "python": with_python,
}  # fmt: skip


def measured(system: str, folder: Path) -> dict[str, float]:
    """Seconds, peak PSS of the process tree and peak of its largest process, in MiB."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as out:
        command = [sys.executable, __file__, "--run", system, str(folder), f"{out}/out"]
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        tree = largest = 0.0
        while process.poll() is None:
            sizes = [pss(each) for each in [process, *_children(process)]]
            tree, largest = max(tree, sum(sizes)), max(largest, *sizes)
            time.sleep(0.2)
        if process.returncode:
            raise RuntimeError(f"{system}: {process.stderr.read().decode()[-2000:]}")
        return {"seconds": time.perf_counter() - start, "tree": tree, "largest": largest}


def _children(process: psutil.Popen) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def pss(process: psutil.Process) -> float:
    """Proportional set size in MiB; 0 for a process that has ended."""
    try:
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        return int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1]) / 1024
    except (OSError, StopIteration):
        return 0.0


def main() -> None:
    """Print one row a size and system: the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--systems", nargs="+", default=list(SYSTEMS), choices=list(SYSTEMS))
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the synthetic collections here")
    parser.add_argument("--run", nargs=3, metavar=("SYSTEM", "FOLDER", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        SYSTEMS[given.run[0]](Path(given.run[1]), Path(given.run[2]))
        return
    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as temporary:
        root = given.folder or Path(temporary)
        print("| passages | system | passages/s | against ranker | peak of all processes, MiB | largest process, MiB |")
        print("|---|---|---|---|---|---|")
        for size in given.sizes:
            folder = root / f"beir-{size}-{given.queries}"
            if not folder.exists():
                make_collection(folder, size, given.queries)
            runs: dict[str, list[dict[str, float]]] = {system: [] for system in given.systems}
            for _ in range(given.repeat):
                for system in given.systems:  # interleaved: the machine's speed drifts
                    runs[system].append(measured(system, folder))
            median = {
                system: {key: statistics.median(run[key] for run in found) for key in found[0]}
                for system, found in runs.items()
            }
            for system, row in median.items():
                ratio = median["ranker"]["seconds"] / row["seconds"] if "ranker" in median else float("nan")
                print(
                    f"| {size:,} | {system} | {size / row['seconds']:,.0f} | {ratio:.2f} | {row['tree']:,.0f} "
                    f"| {row['largest']:,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
