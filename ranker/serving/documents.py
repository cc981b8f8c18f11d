"""``/documents``: add, replace, delete and read documents of the index while it is searched."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from ranker.serving.calls import Backend
from ranker.serving.dialects.base import Request as Body
from ranker.serving.dialects.base import readable
from ranker.serving.errors import ApiError, request_id_of
from ranker.serving.live_index import Document
from ranker.serving.service import caller_of, check_documents, service_of

router = APIRouter(prefix="/documents", tags=["documents"])

DocId = Annotated[str, BeforeValidator(readable), StringConstraints(min_length=1, max_length=512)]
Words = Annotated[str, BeforeValidator(readable)]


class NewDocument(Body):
    """A document; one with an id that is there takes its place."""

    doc_id: DocId = Field(validation_alias=AliasChoices("doc_id", "id"), description="Or ``id``.")
    text: Words = ""
    title: Words | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "NewDocument":
        if not self.text.strip() and not (self.title or "").strip():
            raise ValueError("a document needs a text or a title")
        return self


class PutRequest(Body):
    """Documents to add or replace."""

    documents: list[NewDocument] = Field(min_length=1)


class DeleteRequest(Body):
    """Documents to delete; ids that are not there are no error."""

    doc_ids: list[DocId] = Field(validation_alias=AliasChoices("doc_ids", "ids"), min_length=1)


class ChangeResponse(BaseModel):
    """What became of the documents, and how many there are now. All of it is on disk."""

    id: str
    added: int
    replaced: int
    deleted: int
    documents: int


class DocumentResponse(BaseModel):
    """One document; of one that came with the index, ``text`` holds its title too."""

    doc_id: str
    title: str | None
    text: str


@router.post("")
async def put_documents(body: PutRequest, request: Request) -> ChangeResponse:
    """Add documents, or replace those with the same ids. What is answered survives a crash, and is found at once."""
    check_documents(request, len(body.documents), "documents")
    documents = [Document(given.doc_id, given.title, given.text) for given in body.documents]
    return await _change(request, documents, [])


@router.delete("")
async def delete_documents(body: DeleteRequest, request: Request) -> ChangeResponse:
    """Delete documents by their ids."""
    check_documents(request, len(body.doc_ids), "doc_ids")
    return await _change(request, [], body.doc_ids)


@router.get("/{doc_id:path}")
async def get_document(doc_id: Annotated[str, Path(min_length=1)], request: Request) -> DocumentResponse:
    """One document as it stands now."""
    found = await _backend(request).get_document(doc_id)
    if found is None:
        raise ApiError(404, "no document has this id")
    return DocumentResponse(doc_id=found.doc_id, title=found.title, text=found.text)


@router.delete("/{doc_id:path}")
async def delete_document(doc_id: Annotated[str, Path(min_length=1)], request: Request) -> ChangeResponse:
    """Delete one document."""
    changed = await _change(request, [], [doc_id])
    if not changed.deleted:
        raise ApiError(404, "no document has this id")
    return changed


def _backend(request: Request) -> Backend:
    return service_of(request).backend


async def _change(request: Request, put: list[Document], delete: list[str]) -> ChangeResponse:
    service = service_of(request)
    if not service.writable or not caller_of(request).limits.write:
        who = "this key" if service.writable else "this service"
        raise ApiError(403, f"{who} may not change documents")
    changed = await service.backend.change(put, delete)
    return ChangeResponse(
        id=request_id_of(request.scope), added=changed.added, replaced=changed.replaced, deleted=changed.deleted,
        documents=changed.documents,
    )  # fmt: skip
