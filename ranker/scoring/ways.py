"""The ways that are there to run a model, and the engine of each."""

from importlib.util import find_spec
from pathlib import Path

from ranker.config import ScoringConfig
from ranker.machine import cpu_has_bf16, instruction_sets
from ranker.scoring.choice import Way
from ranker.scoring.lanes import lane_choices, usable_threads
from ranker.scoring.model_folder import GRAPH_NAMES, ModelFiles
from ranker.scoring.scorer import Engine


def choose_engine(files: ModelFiles, wanted: str) -> str:
    """The engine of a config; auto, where nothing is measured, is torch where there are weights for it, else ONNX.

    Raises:
        ValueError: where the folder lacks what the engine asked for needs.
    """
    if wanted == "auto":
        return "torch" if files.weights else "onnx"
    if not (files.weights if wanted == "torch" else files.graphs):
        lack = "torch weights (*.safetensors)" if wanted == "torch" else "model.onnx; export it first"
        raise ValueError(f"engine {wanted!r}: {files.name} has no {lack}")
    return wanted


def fixed_way(files: ModelFiles, config: ScoringConfig) -> Way:
    """The way that a config names, where it leaves nothing to measure.

    Raises:
        ValueError: where the folder lacks what the engine needs, or has no graph of the precision; it lists those.
    """
    wanted = "onnx" if config.engine == "auto" and config.precision == "int8" else config.engine
    engine = choose_engine(files, wanted)
    lanes, threads = config.lanes or 1, config.threads or usable_threads()
    if engine == "torch":
        if config.precision == "int8":
            raise ValueError("precision 'int8': torch computes in fp32, bf16 or fp16; name the engine onnx or openvino")
        return Way(engine, config.precision, None, lanes, threads)
    graph, precision = _graph_in(files, engine, config.precision)
    return Way(engine, precision, _name(files, graph), lanes, threads)


def _graph_in(files: ModelFiles, engine: str, wanted: str) -> tuple[Path, str]:
    """The graph of a precision, and what its way is called; auto: the first graph there is.

    OpenVINO computes an fp32 graph in bf16 and fp16 too.
    """
    if wanted == "auto":
        return files.graphs[0], GRAPH_NAMES.get(files.graphs[0].name, "fp32")
    known = {graph: graph_precision(graph) for graph in files.graphs}
    searched = (wanted, "fp32") if engine == "openvino" and wanted != "int8" else (wanted,)
    for precision in searched:
        for graph, own in known.items():
            if own == precision:
                return graph, wanted
    there = ", ".join(f"{_name(files, graph)} ({own})" for graph, own in known.items())
    raise ValueError(
        f"precision {wanted!r}: {files.name} has no such graph for the engine {engine}, only {there}; export one "
        "(`ranker engines MODEL --export` writes fp32 and int8) or name a precision that is there"
    )


def possible_ways(files: ModelFiles, config: ScoringConfig) -> list[Way]:
    """Every way to run the model on this CPU, the exact one first: engines, precisions and lanes."""
    threads = config.threads or usable_threads()
    kinds: list[tuple[str, str, str | None]] = []
    if files.weights:
        kinds += [("torch", precision, None) for precision in _cpu_precisions()]
    graphs = sorted(files.graphs, key=lambda graph: graph_precision(graph) != "fp32")
    kinds += [("onnx", graph_precision(graph), _name(files, graph)) for graph in graphs]
    if find_spec("openvino") is not None:
        kinds += [
            ("openvino", precision, _name(files, graph))
            for graph in graphs[:1]
            for precision in ("fp32", *(("bf16",) if cpu_has_bf16() else ()))
        ]
    lanes = [config.lanes] if config.lanes else lane_choices(threads)
    return [Way(*kind, number, threads) for kind in kinds for number in lanes]


def open_way(files: ModelFiles, way: Way, device: str | None) -> Engine:
    """The engine of a way.

    Raises:
        ValueError: a device that the engine cannot use, or a graph that is not there any more.
    """
    if way.engine == "torch":
        from ranker.scoring.torch_engine import load_torch_engine

        return load_torch_engine(files, way.precision, device, way.threads, way.lanes)  # type: ignore[arg-type]
    if device is not None and not device.startswith("cpu"):
        raise ValueError(
            f"device {device!r}: the engine {way.engine} computes on the CPU; name the engine torch, or device 'cpu'"
        )
    graph = graph_of(files, way)
    if way.engine == "onnx":
        from ranker.scoring.onnx_engine import OnnxEngine

        return OnnxEngine(graph, way.threads, way.lanes)
    from ranker.scoring.openvino_engine import OpenvinoEngine

    return OpenvinoEngine(graph, way.precision, way.threads, way.lanes)


def graph_of(files: ModelFiles, way: Way) -> Path:
    """The ONNX file of a way.

    Raises:
        ValueError: where it is not there any more.
    """
    for graph in files.graphs:
        if _name(files, graph) == way.graph:
            return graph
    raise ValueError(f"{files.name}: no {way.graph or 'model.onnx'}; export it first")


def graph_precision(graph: Path) -> str:
    """What the graph's own metadata says (ours do), else what its name means."""
    from ranker.scoring.graph_notes import graph_notes

    try:
        said = graph_notes(graph).get("precision")
    except Exception:  # no graph at all: said when it is opened
        said = None
    return said or GRAPH_NAMES.get(graph.name, "fp32")


def _cpu_precisions() -> list[str]:
    sets = instruction_sets()
    return ["fp32", *(["bf16"] if cpu_has_bf16(sets) else []), *(["fp16"] if "avx512_fp16" in sets else [])]


def _name(files: ModelFiles, graph: Path) -> str:
    folder = Path(files.model)
    return str(graph.relative_to(folder)) if graph.is_relative_to(folder) else str(graph)
