"""Hard negatives of a corpus: speed, memory and agreement beside `sentence_transformers.util.mine_hard_negatives`.

Both read the same collection from the disk, encode every document and train query with the same model, take the same
number of neighbours through the same filters, and write the queries with their positives and negatives to Parquet.
Each run is a process of its own whose tree is watched from outside (PSS, see data.py). Without --sizes the documents
are those of --source; with it they are synthetic, and so is the encoder, so that the pipeline is measured and not the
model. Dev and test answers are no part of either copy: this project keeps them out of the negatives, its peer does not.

    python benchmarks/mining.py --repeat 1
    python benchmarks/mining.py --sizes 200000 1000000 --queries 10000
    python benchmarks/mining.py --nodes --documents 4000
"""

import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mining_inputs as inputs
import numpy as np
import psutil
from data import MIB, _children, pss

TOP = 10
# What the peer's default of 16,384 queries at once may take for the similarities to the whole corpus.
MOST_SCORES, SCORES = 12 * 2**30, 2 * 2**30
PEER = "sentence-transformers"
MEASURES = ("encode", "wall", "tree", "largest", "groups")
# Per cent of the cores that others may take when a run begins.
BUSY = 10.0
Given = dict[str, Any]


def experiment(folder: Path, out: Path, given: Given) -> Any:
    """The config of this project that does what the peer does."""
    from ranker.config import Experiment
    from ranker.config.experiment import known_paths

    wanted = {
        "output_dir": str(out),
        "data.source": str(folder),
        "index.model": given["model"],
        "index.max_length": None,  # the model's own, as the peer
        "index.precision": given["precision"],
        "index.num_workers": given["workers"],
        "mine.num_negatives": given["negatives"],
        "mine.relative_margin": given["margin"],
        "mine.range_max": given["depth"],
        "mine.near_duplicates": None,  # the peer has no such filter
        "mine.num_dev_queries": 0,
    }
    known = known_paths()
    return Experiment().with_overrides({path: value for path, value in wanted.items() if path in known})


def with_ranker(folder: Path, out: Path, given: Given) -> dict[str, Any]:
    """The doors of the stages data, index and mine, on one local cluster."""
    from ranker.data.catalog import prepare
    from ranker.retrieval.index import build_index
    from ranker.session import connected
    from ranker.training.mining import mine

    config, start = experiment(folder, out, given), time.perf_counter()
    with connected(config.ray):
        stages = {"Ray": time.perf_counter() - start}
        for name, door in {"data": prepare, "index": build_index, "mine": mine}.items():
            start = time.perf_counter()
            done = door(config)
            stages[name] = time.perf_counter() - start
            if name == "index":
                stages["encode"] = done.outcome["documents"] / done.outcome["documents_per_second"]
    return {"encode": stages.pop("encode"), "kept": 0.0, "groups": done.outcome["groups"], "stages": stages}


def with_peer(folder: Path, out: Path, given: Given, use_faiss: bool = False) -> dict[str, Any]:
    """The peer's function with its defaults; its vectors are kept for the comparison, in time that does not count."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    out.mkdir(parents=True)
    documents, pairs = inputs.read_texts(folder), inputs.read_pairs(folder)
    model, seconds = SentenceTransformer(given["model"], device="cpu"), {"kept": 0.0}
    for name in ("encode_document", "encode_query"):
        setattr(model, name, partial(_timed, getattr(model, name), out / f"{name}.npy", seconds))
    num_queries = min(len({query for query, _ in pairs}), 16_384)
    limited = 4 * num_queries * len(documents) > MOST_SCORES and not use_faiss
    mined = mine_hard_negatives(
        Dataset.from_dict({"query": [query for query, _ in pairs], "positive": [text for _, text in pairs]}),
        model,
        corpus=list(documents.values()),
        num_negatives=given["negatives"],
        relative_margin=given["margin"],
        range_max=given["depth"],
        output_format="labeled-list",
        use_faiss=use_faiss,
        verbose=False,
        faiss_batch_size=SCORES // (4 * len(documents)) if limited else 16_384,
    )
    mined.to_parquet(str(out / "groups.parquet"))
    note = f"{SCORES / 2**30:.0f} GiB of similarities at once; its default would take more than the machine has"
    found = {"encode": seconds["encode_document"], "kept": seconds["kept"], "groups": len(set(mined["query"]))}
    return {**found, "note": note} if limited else found


def _timed(encode: Callable[..., Any], file: Path, seconds: dict[str, float], texts: list[str], **options: Any) -> Any:
    start = time.perf_counter()
    vectors = encode(texts, **options)
    encoded = time.perf_counter()
    np.save(file, vectors)
    seconds[file.stem] = encoded - start
    seconds["kept"] += time.perf_counter() - encoded
    return vectors


def on_nodes(nodes: int, folder: Path, out: Path, given: Given) -> dict[str, Any]:
    """Stage `index` on so many raylets of one core. 0: the encoder alone, in this process and on one core."""
    if not nodes:
        return _alone(folder, given)
    import ray
    from ray.cluster_utils import Cluster

    from ranker.data.catalog import prepare
    from ranker.retrieval.embed import embeddings_folder
    from ranker.retrieval.index import build_index
    from ranker.session import worker_environment

    room = {"num_cpus": 1, "object_store_memory": 200 * MIB}
    cluster = Cluster(initialize_head=True, head_node_args=room)
    for _ in range(nodes - 1):
        cluster.add_node(**room)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": worker_environment()})
    config = experiment(folder, out, {**given, "workers": nodes})
    prepare(config)
    outcome = build_index(config).outcome
    ray.shutdown()
    cluster.shutdown()
    # From when every node had finished a part: what came before is the start of the actors.
    written = sorted(file.stat().st_mtime for file in embeddings_folder(config).glob("part-*.parquet"))
    parts = len(written) - nodes
    rate = outcome["documents"] * parts / len(written) / (written[-1] - written[nodes - 1])
    seconds = outcome["documents"] / outcome["documents_per_second"]
    return {"rate": rate, "start": seconds - outcome["documents"] / rate, "encode": seconds, "kept": 0.0}


def _alone(folder: Path, given: Given) -> dict[str, Any]:
    from ranker.retrieval.embeddings import plan_parts
    from ranker.retrieval.encoder import Encoder

    texts, start = list(inputs.read_texts(folder).values()), time.perf_counter()
    encoder = Encoder(given["model"], None, given["precision"], threads=1)
    ready = time.perf_counter()
    for part in plan_parts(len(texts)):
        encoder.encode_documents(texts[part.start : part.start + part.length])
    end = time.perf_counter()
    return {"rate": len(texts) / (end - ready), "start": ready - start, "encode": end - start, "kept": 0.0}


SYSTEMS: dict[str, Callable[[Path, Path, Given], dict[str, Any]]] = {
    "ranker": with_ranker,
    PEER: with_peer,
    f"{PEER}, faiss": partial(with_peer, use_faiss=True),
    **{f"{nodes} nodes": partial(on_nodes, nodes) for nodes in range(3)},
}


def measured(system: str, folder: Path, out: Path, given: Given) -> dict[str, Any]:
    """What the system says of itself, its wall time, and the peaks of its process tree and largest process, in MiB."""
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out, ignore_errors=True)  # what an earlier call has left there
    until = time.monotonic() + given["wait"]
    while time.monotonic() < until and psutil.cpu_percent(2.0) > BUSY:
        pass
    result, log = out.with_suffix(".json"), out.with_suffix(".log")
    command = [sys.executable, __file__, "--run", system, str(folder), str(out), json.dumps(given), str(result)]
    with log.open("w") as stream:  # a pipe that nobody reads would stop it
        start = time.perf_counter()
        process = psutil.Popen(command, stdout=stream, stderr=stream)
        tree = largest = 0.0
        while process.poll() is None:
            sizes = [pss(each) for each in [process, *_children(process)]]
            tree, largest = max(tree, sum(sizes)), max(largest, *sizes)
            time.sleep(0.5)
        seconds = time.perf_counter() - start
    if process.returncode:
        raise RuntimeError(f"{system}: {log.read_text()[-3000:]}")
    found = json.loads(result.read_text())
    return {**found, "wall": seconds - found["kept"], "tree": tree, "largest": largest}


def repeated(systems: list[str], folder: Path, root: Path, given: Given) -> dict[str, list[dict[str, Any]]]:
    """Every system as often as asked for, interleaved: the machine's speed drifts. What they wrote last stays."""
    runs: dict[str, list[dict[str, Any]]] = {system: [] for system in systems}
    for number in range(given["repeat"]):
        for system in systems:
            runs[system].append(measured(system, folder, root / folder.name / f"{system}-{number}", given))
    return runs


def median(runs: list[dict[str, Any]], key: str) -> float:
    """Of one measure over the repeats."""
    return statistics.median(run[key] for run in runs)


def compare(folder: Path, root: Path, given: Given, systems: list[str]) -> list[str]:
    """Print the systems side by side; what is to be said below the table."""
    size, runs = inputs.count(folder / "corpus.jsonl"), repeated(systems, folder, root, given)
    peer = next((runs[system] for system in systems if system != "ranker"), runs[systems[0]])
    for system, found in runs.items():
        encode, wall, tree, largest, groups = (median(found, key) for key in MEASURES)
        print(
            f"| {size:,} | {system} | {encode:,.1f} | {size / encode:,.1f} | {median(peer, 'encode') / encode:.2f} "
            f"| {wall:,.1f} | {median(peer, 'wall') / wall:.2f} | {tree:,.0f} | {largest:,.0f} | {groups:,.0f} |",
            flush=True,
        )
    notes = []
    for system, found in runs.items():
        if "stages" in found[0]:
            parts = {name: statistics.median(run["stages"][name] for run in found) for name in found[0]["stages"]}
            notes.append(f"{system}: " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in parts.items()))
        notes += [f"{system}: {found[0]['note']}"] if "note" in found[0] else []
        if system.startswith(PEER) and "ranker" in systems:
            outs = [root / folder.name / f"{each}-{given['repeat'] - 1}" for each in ("ranker", system)]
            notes.append(f"ranker and {system}: {inputs.agreement(folder, *outs, given, TOP)}")
    return [f"{size:,} passages, {note}" for note in notes]


def compare_nodes(folder: Path, root: Path, given: Given) -> None:
    """Print the encoder alone, one raylet and two."""
    runs = repeated([f"{nodes} nodes" for nodes in range(3)], folder, root, given)
    alone = median(runs["0 nodes"], "rate")
    print("| raylets of one core | passages/s | against one core without Ray | lost to Ray | start, s | all of it, s |")
    print("|---|---|---|---|---|---|")
    for nodes, found in enumerate(runs.values()):
        rate, start, encode = (median(found, key) for key in ("rate", "start", "encode"))
        lost = f"{1 - rate / (nodes * alone):.1%}" if nodes else ""
        print(f"| {nodes} | {rate:,.1f} | {rate / alone:.2f} | {lost} | {start:.1f} | {encode:,.1f} |")


def main() -> None:
    """Print a table; every row is a median."""
    given = inputs.arguments(__doc__.splitlines()[0], [*SYSTEMS][:3]).parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    # By default Ray's workers give way to everything else on the machine, and the peer does not.
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    if given.run:
        system, folder, out, plain, result = given.run
        Path(result).write_text(json.dumps(SYSTEMS[system](Path(folder), Path(out), json.loads(plain))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = (given.folder or Path(temporary)).absolute()
        collections = inputs.collections(given, root)
        if not given.nodes:
            print(
                "| passages | system | encode, s | passages/s | against the peer | wall, s | against the peer "
                "| peak of all processes, MiB | largest process, MiB | queries with negatives |"
            )
            print("|---|---|---|---|---|---|---|---|---|---|")
        notes = []
        for folder, plain in collections:
            if given.nodes:
                compare_nodes(folder, root / "runs", plain)
            else:
                notes += compare(folder, root / "runs", plain, given.systems)
        print("\n" + "\n".join(f"- {note}" for note in notes) if notes else "")


if __name__ == "__main__":
    main()
