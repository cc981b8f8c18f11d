"""What every section of an experiment file shares.

A field marked ``local()`` says where or with how much hardware a stage runs. It never changes the result, so it
is left out of the stage's fingerprint: a run may be resumed with other workers or another folder name.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Precision = Literal["auto", "fp32", "bf16", "fp16"]
Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """What every section shares."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, protected_namespaces=())

    def identity(self) -> dict[str, Any]:
        """The part that decides the result, as plain values."""
        plain: dict[str, Any] = {}
        for name, info in type(self).model_fields.items():
            if isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("local"):
                continue
            value = getattr(self, name)
            plain[name] = value.identity() if isinstance(value, Section) else value
        return plain


def local(default: Any, **limits: Any) -> Any:
    """A field that says where a stage runs, not what it makes."""
    return Field(default, json_schema_extra={"local": True}, **limits)
