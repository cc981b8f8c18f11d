"""A process that is killed with SIGKILL while it indexes or saves leaves the last good index, in every store."""

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from ranker.rag import RAGPipeline

# For each line that it reads it forks a process, so that libraries are imported once. That one says its id, saves 40
# documents, and then for ever indexes and saves 40 others and the first 40 again, saying what it does.
WRITER = """
import os, sys
import sentence_transformers
from ranker.rag import RAGPipeline
model, folder, store, place = sys.argv[1:]

def write():
    print(os.getpid(), flush=True)
    options = {"path": place} if place else {}
    pipeline = RAGPipeline(model, store=store, store_options=options, device="cpu")
    one = [{"id": f"{n}", "text": f"a cat {n}"} for n in range(40)]
    other = [{"id": f"{n}", "text": f"a dog {n}"} for n in range(40)]
    pipeline.index_documents(one)
    pipeline.save(folder)
    print("saved", flush=True)
    while True:
        for documents in (other, one):
            print("indexing", flush=True)
            pipeline.index_documents(documents)
            pipeline.update([{"id": "3", "text": documents[3]["text"] + " again"}])
            print("saving", flush=True)
            pipeline.save(folder)

for _ in sys.stdin:
    child = os.fork()
    if not child:
        write()
    os.waitpid(child, 0)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("label", ["faiss", "chroma", "chroma at a path", "lancedb at a path"])
def test_a_kill_at_any_moment_leaves_an_index_that_answers(label, tiny_retriever, tmp_path: Path) -> None:
    name = label.partition(" ")[0]
    if not find_spec({"chroma": "chromadb"}.get(name, name)):
        pytest.skip(f"{name} is not installed")
    place = str(tmp_path / "database") if " at " in label else ""
    folder, seen = tmp_path / "saved", set()
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, tiny_retriever, str(folder), name, place],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert writer.stdin is not None and writer.stdout is not None
    for round_, moment in enumerate((0.0, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16)):
        writer.stdin.write("again\n")
        writer.stdin.flush()
        line = "\n"
        while not line.strip().isdigit():  # words of the one before, which it said just before its end
            line = writer.stdout.readline()
            assert line, "the writer is gone"
        child = int(line)
        words = [writer.stdout.readline().strip() for _ in range(2 + round_ % 3)]
        assert words[:2] == ["saved", "indexing"], words
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        loaded = RAGPipeline.load(folder, device="cpu")
        found = loaded.retrieve("a cat 7", 40)
        animals = {one.text.split()[1] for one in found}
        assert len(found) == 40 and len(animals) == 1, (moment, animals)
        seen |= animals
        loaded.add(["a fish"])
        loaded.save(folder)  # what the killed one left in the collection goes now
        assert len(loaded._library.store) == 41
        assert len(RAGPipeline.load(folder, device="cpu")) == 41
    writer.stdin.close()
    writer.wait()
    assert seen <= {"cat", "dog"}
