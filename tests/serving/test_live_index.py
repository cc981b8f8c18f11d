"""An index of the pets that changes while it is searched."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from ranker.manifest import StageError
from ranker.serving.live_index import Document, LiveIndex
from ranker.serving.texts import BLOCK, Texts, map_texts

DOG = Document("p-dog", "Rex", "barks at every stranger who comes to the door")


@pytest.fixture
def folders(experiment: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    runs = experiment.parent / "runs"
    return runs / "index", runs / "data", tmp_path / "documents"


def ids(index: LiveIndex, query: str, depth: int = 10) -> list[str]:
    return [neighbour.doc_id for neighbour in index.search([query], [depth])[0]]


def test_an_untouched_index_finds_what_the_retriever_finds(folders):
    from ranker.retrieval.retriever import Retriever

    [expected] = Retriever(folders[0]).retrieve(["which animal barks"], 4)
    found = LiveIndex(*folders).search(["which animal barks"], [4])[0]
    assert [(neighbour.doc_id, neighbour.score) for neighbour in found] == expected
    assert not folders[2].exists()  # nothing was written


def test_a_document_is_added_replaced_and_deleted(folders):
    index = LiveIndex(*folders)
    index.put([DOG])
    [best, *_] = index.search([DOG.words], [3])[0]
    assert (best.doc_id, best.text, best.score) == ("p-dog", DOG.words, pytest.approx(1.0, abs=1e-5))
    index.put([Document("p-dog", None, "a completely different text about fish")])
    assert index.get("p-dog").text == "a completely different text about fish"
    assert ids(index, DOG.words, 20).count("p-dog") == 1
    assert index.delete(["p-dog", "nobody"]) == ["p-dog"]
    assert "p-dog" not in ids(index, DOG.words, 20) and index.get("p-dog") is None
    assert index.counts() == {"documents": 10, "added": 0}


def test_documents_of_the_index_are_hidden_and_the_list_stays_full(folders):
    index = LiveIndex(*folders)
    before = ids(index, "which animal barks", 10)
    assert len(before) == 10
    index.delete(before[:6])
    assert ids(index, "which animal barks", 4) == before[6:]
    index.put([Document("new", None, "a text"), Document(before[0], None, "an entirely new text")])
    assert index.delete(["new"]) == ["new"]
    assert sorted(ids(index, "which animal barks", 10)) == sorted([before[0], *before[6:]])
    assert index.counts() == {"documents": 5, "added": 1}


def test_another_replica_and_a_restarted_one_find_the_same(folders):
    one, other = LiveIndex(*folders), LiveIndex(*folders)
    one.put([DOG])
    other.delete([ids(other, "cat", 1)[0]])
    query = "who barks at strangers"
    assert ids(one, query) == ids(other, query) == ids(LiveIndex(*folders), query)
    assert "p-dog" in ids(other, query)


def test_documents_of_another_encoder_are_encoded_again(folders):
    writer = LiveIndex(*folders)
    writer.encoder_name = "another model"
    vector = np.zeros((1, 32), np.float32)
    writer._encode = lambda texts: vector  # what the other model made of it
    writer.put([DOG])
    [best, *_] = LiveIndex(*folders).search([DOG.words], [1])[0]
    assert (best.doc_id, best.score) == ("p-dog", pytest.approx(1.0, abs=1e-5))


def test_a_document_whose_encoding_fails_once_is_found_at_the_next_search(folders):
    writer, reader = LiveIndex(*folders), LiveIndex(*folders)
    writer.encoder_name = "another model"
    writer.put([DOG])
    encode = reader._encode

    def fail(texts):
        raise MemoryError

    reader._encode = fail
    with pytest.raises(MemoryError):
        reader.search([DOG.words], [1])
    reader._encode = encode
    assert reader.search([DOG.words], [1])[0][0].doc_id == "p-dog"
    assert reader.counts() == LiveIndex(*folders).counts()


def test_texts_are_mapped_and_belong_to_the_index(folders, tmp_path: Path):
    index, corpus, _ = folders
    texts = map_texts(corpus, index, tmp_path)
    assert len(texts) == 10 and texts[9].strip() and isinstance(texts.doc_id(0), str)
    other = tmp_path / "other"
    shutil.copytree(corpus, other)
    manifest = other / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"key": "', '"key": "0'))
    with pytest.raises(StageError, match="built from other documents"):
        map_texts(other, index, tmp_path)


def test_texts_of_many_blocks_keep_their_order(tmp_path: Path):
    import pyarrow as pa

    from ranker.schemas import CORPUS
    from ranker.schemas.corpus import TableCorpus
    from ranker.serving.texts import _write

    count = 2 * BLOCK + 7
    names = [str(number) for number in range(count)]
    table = pa.table({"doc_id": names, "title": [None] * count, "text": names}, schema=CORPUS)
    _write(TableCorpus(table), tmp_path / "texts.arrow")
    texts = Texts(tmp_path / "texts.arrow")
    assert len(texts) == count
    assert [texts[place] for place in (0, BLOCK - 1, BLOCK, count - 1)] == [
        "0",
        str(BLOCK - 1),
        str(BLOCK),
        str(count - 1),
    ]
