"""What kinds of FAISS index can and cannot do, and how each is told what to look at."""

from typing import Any, cast

import faiss

from ranker.retrieval.stores.base import StoreError


def innermost(index: Any) -> Any:
    """The index that holds the vectors, below its keys and the transformations in front of it."""
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform | faiss.IndexIDMap | faiss.IndexIDMap2 | faiss.IndexRefine):
        inner = faiss.downcast_index(inner.base_index if isinstance(inner, faiss.IndexRefine) else inner.index)
    return inner


def with_keys(index: Any) -> Any:
    """The index itself when it files vectors under keys of their own (IVF), else wrapped so that it does."""
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexPreTransform):
        inner = faiss.downcast_index(inner.index)
    if isinstance(inner, faiss.IndexIVF):
        return index
    wrapped = faiss.IndexIDMap2(index)
    index.this.disown()  # the wrapper frees it
    wrapped.own_fields = True
    return wrapped


def keeps_vectors(index: Any) -> bool:
    """Whether a vector, or what a code kept of it, can be read back by its key; IVF would need a map for it."""
    kind = innermost(index)
    return isinstance(kind, faiss.IndexFlatCodes | faiss.IndexHNSW) and not isinstance(kind, faiss.IndexLSH)


def tune(index: Any, factory: str, nprobe: int | None, ef_search: int | None) -> None:
    """Set how widely an approximate index looks.

    Raises:
        StoreError: where this kind of index has no such setting.
    """
    inner = innermost(index)
    for name, value, kind, attribute in (
        ("nprobe", nprobe, faiss.IndexIVF, "nprobe"),
        ("ef_search", ef_search, faiss.IndexHNSW, "hnsw.efSearch"),
    ):
        if value is None:
            continue
        if not isinstance(inner, kind) or value < 1:
            raise StoreError(f"{name} {value}: index.factory {factory!r} has no such setting, or it is below 1")
        target, _, last = attribute.rpartition(".")
        setattr(getattr(inner, target) if target else inner, last, value)


def search_options(index: Any, selector: Any) -> Any:
    """Search parameters that let only the selected keys be found; of an IVF index, in all its cells."""
    inner, kinds = innermost(index), cast(Any, faiss)  # whose stubs do not know these arguments
    if isinstance(inner, faiss.IndexIVF):
        return kinds.SearchParametersIVF(sel=selector, nprobe=inner.nlist)
    if isinstance(inner, faiss.IndexHNSW):
        return kinds.SearchParametersHNSW(sel=selector, efSearch=4 * inner.hnsw.efSearch)
    return kinds.SearchParameters(sel=selector)
