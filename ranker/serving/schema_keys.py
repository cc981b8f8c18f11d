"""Keys of a Serve config that no schema has, with the place where such a key belongs. Ray ignores them silently."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from ranker.registry import nearest
from ranker.serving.artefacts import ServeArgs

APPLICATION, DEPLOYMENT = "applications[]", "applications[].deployments[]"


def unknown_keys(plain: Any, model: type[BaseModel] = ServeDeploySchema, where: str = "") -> Iterator[str]:
    """Keys that no field of the schema has, at any depth; each with the place it belongs to or the nearest name."""
    if not isinstance(plain, dict):
        return
    fields = _fields(model)
    for key, value in plain.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            yield f"{path}: unknown{_place(str(key))}; {nearest(str(key), [*fields])}"
            continue
        inner = next(_models(fields[key]), None)
        if inner is None:
            continue
        for number, entry in enumerate(value if isinstance(value, list) else [value]):
            yield from unknown_keys(entry, inner, f"{path}.{number}" if isinstance(value, list) else path)


def _place(key: str) -> str:
    found = [home for home, model in _homes(ServeDeploySchema, "") if key in _fields(model)]
    if key in ServeArgs.model_fields:
        found.append(f"{APPLICATION}.args")
    return f" here, it belongs in {' or '.join(dict.fromkeys(found[:2]))}" if found else ""


def _homes(model: type[BaseModel], where: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every part of the schema that a user writes, outermost first, and where it stands."""
    inner = []
    for name, annotation in _fields(model).items():
        found = next(_models(annotation), None)
        if found is not None:
            many = "list" in str(annotation).lower()
            inner.append((f"{where}.{name}{'[]' if many else ''}".lstrip("."), found))
    yield where or "the top of the file", model
    for place, found in inner:
        yield from _homes(found, place)


def _fields(model: type[BaseModel]) -> dict[str, Any]:
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Pydantic models in an annotation such as ``Optional[Union[dict, AutoscalingConfig]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
