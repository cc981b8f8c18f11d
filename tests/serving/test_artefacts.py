import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from ranker.manifest import Manifest, StageError
from ranker.schemas import CORPUS
from ranker.serving.artefacts import ServeArgs, find_artefacts, find_pickles
from ranker.serving.texts import map_texts


def finish(folder: Path, stage: str, key: str, inputs: dict[str, str] | None = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(asdict(Manifest(stage, key, {}, inputs or {}))))
    return folder


def experiment(tmp_path: Path) -> ServeArgs:
    (tmp_path / "pets.yaml").write_text(f"name: pets\noutput_dir: {tmp_path}/runs\n")
    return ServeArgs(experiment=str(tmp_path / "pets.yaml"))


def test_all_missing_folders_are_named_with_their_commands(tmp_path: Path):
    (tmp_path / "runs" / "model").mkdir(parents=True)  # there, but nothing finished in it
    with pytest.raises(StageError) as caught:
        find_artefacts(experiment(tmp_path))
    lines = str(caught.value).splitlines()[1:]
    config = tmp_path / "pets.yaml"
    assert lines == [
        f"  reranker: {tmp_path}/runs/model holds no finished stage; run 'ranker train {config}'",
        f"  index: {tmp_path}/runs/index does not exist; run 'ranker index {config}'",
        f"  corpus: {tmp_path}/runs/data does not exist; run 'ranker prepare {config}'",
    ]


def test_the_exported_model_is_preferred_unless_torch_is_asked_for(tmp_path: Path):
    args, runs = experiment(tmp_path), tmp_path / "runs"
    for folder in ("data", "index", "model"):
        finish(runs / folder, folder, "key")
    assert find_artefacts(args).reranker == str(runs / "model")
    finish(runs / "onnx", "export", "key")
    found = find_artefacts(args)
    assert (found.model_name, found.reranker, found.index) == ("pets", str(runs / "onnx"), runs / "index")
    torch = args.model_copy(update={"overrides": {"serve.scoring.engine": "torch"}})
    assert find_artefacts(torch).reranker == str(runs / "model")


def test_folders_may_be_named_without_an_experiment(tmp_path: Path, tiny_reranker: str):
    index, corpus = finish(tmp_path / "i", "index", "b"), finish(tmp_path / "c", "data", "a")
    found = find_artefacts(ServeArgs(reranker=tiny_reranker, index=str(index), corpus=str(corpus)))
    assert (found.model_name, found.corpus) == ("tiny-reranker", corpus)
    alone = find_artefacts(ServeArgs(reranker=tiny_reranker, retrieval=False, model_name="mine"))
    assert (alone.model_name, alone.index, alone.corpus) == ("mine", None, None)


def test_a_folder_that_is_no_model_is_an_error(tmp_path: Path):
    with pytest.raises(StageError, match="no such model folder"):
        find_artefacts(ServeArgs(reranker=str(tmp_path / "nothing"), retrieval=False))


def test_documents_must_be_those_of_the_index(tmp_path: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    corpus = finish(tmp_path / "data", "data", "key-of-data")
    (corpus / "corpus").mkdir()
    rows = [{"doc_id": "d1", "title": "Dogs", "text": "bark"}, {"doc_id": "d2", "title": "", "text": "purr"}]
    pq.write_table(pa.Table.from_pylist(rows, CORPUS), corpus / "corpus" / "part-00000.parquet")
    built = finish(tmp_path / "index", "index", "x", {"data": "key-of-data"})
    texts = map_texts(corpus, built, tmp_path / "cache")
    assert [texts[0], texts[1]] == ["Dogs bark", "purr"]
    other = finish(tmp_path / "other", "index", "y", {"data": "another key"})
    with pytest.raises(StageError, match="built from other documents"):
        map_texts(corpus, other, tmp_path / "cache")


def test_ray_reads_the_type_of_the_builder():
    from ranker.serving.app import build

    assert build.__annotations__["args"] is ServeArgs


def test_importing_the_room_is_cheap():
    code = "import sys, ranker.serving; sys.exit(any(name in sys.modules for name in ('ray', 'torch', 'fastapi')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_several_models_have_names_and_the_first_is_the_reranker(tmp_path: Path, tiny_reranker: str):
    args = ServeArgs(reranker=tiny_reranker, retrieval=False, model_name="mine", models={"other": tiny_reranker})
    assert find_artefacts(args).models == {"mine": tiny_reranker, "other": tiny_reranker}
    twice = args.model_copy(update={"models": {"mine": tiny_reranker, "none": str(tmp_path / "nothing")}})
    with pytest.raises(StageError) as told:
        find_artefacts(twice)
    assert "'mine' is already the name" in str(told.value) and "models.none: " in str(told.value)


def test_weights_as_a_pickle_are_refused_by_name(tmp_path: Path, tiny_reranker: str):
    folder = tmp_path / "model"
    shutil.copytree(tiny_reranker, folder)
    (folder / "training_args.bin").write_bytes(b"")  # left by a trainer, and read by nobody
    (folder / "pytorch_model.bin").write_bytes(b"")  # the same weights once more
    assert find_pickles(folder) == []
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(StageError, match=r"2_Dense/pytorch_model\.bin: weights as a pickle.*safetensors"):
        find_artefacts(ServeArgs(reranker=str(folder), retrieval=False))
    next(folder.glob("*.safetensors")).unlink()
    with pytest.raises(StageError, match="pickled weights are not loaded"):
        find_artefacts(ServeArgs(reranker=str(folder), retrieval=False))
