"""A query and a document as one number: what is said of them twice is found without a Python object a row."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def pair_codes(table: pa.Table) -> NDArray[np.int64]:
    """A number for each row, the same for rows that are alike in their first two columns, which are strings."""
    first, _ = codes(table.column(0))
    second, size = codes(table.column(1))
    return first * size + second


def codes(column: pa.ChunkedArray) -> tuple[NDArray[np.int64], int]:
    """(a number for each value, in the order in which they are met; how many there are)."""
    encoded = column.dictionary_encode()
    if not encoded.num_chunks:
        return np.zeros(0, dtype=np.int64), 0
    indices = pa.chunked_array([chunk.indices for chunk in encoded.chunks])
    return indices.to_numpy().astype(np.int64), len(encoded.chunk(encoded.num_chunks - 1).dictionary)


def together(table: pa.Table, how: str) -> pa.Table:
    """Rows that are alike in the first two columns as one, in the order of the first of them.

    Args:
        table: two columns of strings and one of numbers. how: what becomes of the number: ``min``, ``max`` or ``last``.
    """
    _, first, back = np.unique(pair_codes(table), return_index=True, return_inverse=True)
    if len(first) == table.num_rows:
        return table
    values = table.column(2).to_numpy()
    found = values[first]
    if how == "last":
        found[back] = values  # numpy: of several values for one place the last stays
    else:
        (np.minimum if how == "min" else np.maximum).at(found, back, values)
    order = np.argsort(first)
    kept = table.take(pa.array(first[order]))
    return kept.set_column(2, table.schema.field(2), pa.array(found[order], table.schema.field(2).type))
