"""A sequence classifier as an ONNX graph with free batch size and length, in fp32, fp16 or int8."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from ranker.scoring.batches import Batch

# Protobuf ends at 2 GiB; larger weights go into a file of their own beside the graph.
SINGLE_FILE_BYTES = 1_800_000_000


class _Output(nn.Module):
    """The model with the tokenizer's columns as positional inputs and one float32 output."""

    def __init__(self, model: nn.Module, names: Sequence[str], output: str) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.output = output

    def forward(self, *columns: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = getattr(self.model(**dict(zip(self.names, columns, strict=True))), self.output)
        return found.float()


def write_graph(model: nn.Module, example: Batch, path: Path, output: str = "logits") -> None:
    """Write the fp32 graph; its inputs are the example's columns, its output is ``logits`` (rows, 1).

    Args:
        model: in eval mode, fp32, on the CPU.
        example: a batch of two rows or more, since a size of one would be taken for a constant.
        path: the ``.onnx`` file; weights above 1.8 GB lie in ``NAME.onnx.data`` beside it.
        output: name of the model's output that is read, and of the graph's.
    """
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    size = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    with quiet():
        torch.onnx.export(
            _Output(model, list(example), output).eval(),
            tuple(torch.from_numpy(table) for table in example.values()),
            str(path),
            input_names=list(example),
            output_names=[output],
            dynamic_shapes=(tuple(free for _ in example),),
            dynamo=True,
            external_data=size > SINGLE_FILE_BYTES,
            verbose=False,
        )


def write_half(source: Path, path: Path) -> None:
    """The graph with fp16 weights and arithmetic; inputs and logits keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        _save(convert_float_to_float16(onnx.load(source), keep_io_types=True), path)


def write_dynamic_int8(source: Path, path: Path) -> None:
    """int8 weights a channel, activations measured as they come; embeddings and head stay in fp32."""
    _write_dynamic(source, path, [])


def write_mixed_int8(source: Path, path: Path) -> None:
    """The same, but what narrows the feed-forward stays in fp32: its inputs spread widest and lose most."""
    model = onnx.load(source)
    weights = {weight.name: list(weight.dims) for weight in model.graph.initializer}
    products = [node for node in model.graph.node if node.op_type == "MatMul" and node.input[1] in weights]
    _write_dynamic(source, path, [node.name for node in products if _narrows(weights[node.input[1]])])


def _narrows(shape: list[int]) -> bool:
    return shape[0] > shape[1]


def _write_dynamic(source: Path, path: Path, excluded: list[str]) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet():
        quantize_dynamic(
            source,
            path,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # Without VNNI the runtime adds products in 16 bits, which eight-bit weights overflow.
            reduce_range=True,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=excluded,
            extra_options={"MatMulConstBOnly": True},
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )


def write_static_int8(source: Path, path: Path, batches: Sequence[Batch]) -> None:
    """int8 weights a channel, activations scaled by what they were on ``batches``; a logit has no batch mates."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader(_calibration_reader()):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self.left, None)

    with quiet():
        quantize_static(
            source,
            path,
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
            use_external_data_format=source.with_name(f"{source.name}.data").exists(),
        )


def _calibration_reader() -> type:
    from onnxruntime.quantization import CalibrationDataReader

    return CalibrationDataReader


def write_blockwise_int8(source: Path, path: Path) -> None:
    """int8 weights and activations in blocks of 32, each with its own scale; embeddings stay in fp32."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet():
        # accuracy_level 4: the products are done in int8.
        quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=8, block_size=32, is_symmetric=True, accuracy_level=4)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path), use_external_data_format=_is_large(quantizer.model.model))


def mark(path: Path, precision: str) -> None:
    """Write the precision into the graph's own metadata, where the scorer reads it."""
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {"precision": precision})
    onnx.save(model, path)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No chatter of the exporter and the quantiser, who write to stdout and configure the root logger."""
    root = logging.getLogger()
    exporter = logging.getLogger("torch.onnx")
    level, exporter_level, disabled = root.level, exporter.level, logging.root.manager.disable
    handlers = list(root.handlers)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        exporter.setLevel(logging.ERROR)
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
            root.setLevel(level)
            root.handlers[:] = handlers
            exporter.setLevel(exporter_level)


def _is_large(model: onnx.ModelProto) -> bool:
    return sum(len(weight.raw_data) for weight in model.graph.initializer) > SINGLE_FILE_BYTES


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.save(model, path, save_as_external_data=_is_large(model), location=f"{path.name}.data")
