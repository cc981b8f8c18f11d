"""A folder of text and Markdown files as documents."""

import json
from pathlib import Path
from typing import Any

import yaml

TEXT, MARKDOWN = (".txt", ".text", ".rst"), (".md", ".markdown")


def read_folder(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The files below ``folder`` in name order as dicts for ``as_documents``, and what is wrong with others.

    A document's id is its path below the folder, which is also its metadata's ``source``. The title of Markdown is that
    of its front matter, else its first heading; the front matter's other fields are metadata. Hidden files, and files
    with other endings, are left out.
    """
    documents, problems = [], []
    for file in sorted(folder.rglob("*")):
        place = file.relative_to(folder)
        if file.suffix.lower() not in TEXT + MARKDOWN or any(part.startswith(".") for part in place.parts):
            continue
        if not file.is_file():
            continue
        try:
            text = file.read_text("utf-8-sig")
        except (UnicodeDecodeError, OSError) as error:
            problems.append(f"{place}: cannot be read as UTF-8 text ({error}); save it again as UTF-8")
            continue
        documents.append(_document(place.as_posix(), text, file.suffix.lower() in MARKDOWN))
    if not documents and not problems:
        problems.append(f"{folder}: holds no {', '.join(TEXT + MARKDOWN)} file")
    return documents, problems


def _document(name: str, text: str, markdown: bool) -> dict[str, Any]:
    about, body = _front_matter(text) if markdown else ({}, text)
    heading = next((line.lstrip("# ").strip() for line in body.splitlines() if line.startswith("# ")), "")
    title = str(about.pop("title", "") or (heading if markdown else ""))
    return {"id": name, "title": title, "text": body.strip(), "metadata": {**about, "source": name}}


def _front_matter(text: str) -> tuple[dict[str, Any], str]:
    head, mark, body = text.removeprefix("---\n").partition("\n---\n")
    if not text.startswith("---\n") or not mark:
        return {}, text
    try:
        about = yaml.safe_load(head)
    except yaml.YAMLError:
        return {}, text  # two rules in a text, and no front matter
    if not isinstance(about, dict):
        return {}, text
    return json.loads(json.dumps({str(name): value for name, value in about.items()}, default=str)), body
