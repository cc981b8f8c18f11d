"""An inspection as tables that fit a terminal: zeros are dim, what is worth a look yellow, what is wrong red."""

from collections.abc import Iterator, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ranker.data.inspection.copies import Copies, Some
from ranker.data.inspection.example_counts import ExampleCounts
from ranker.data.inspection.judged import CandidateCounts, Spread
from ranker.data.inspection.lengths import LIMITS, Lengths
from ranker.data.inspection.report import Inspection

# Splits side by side in one table.
SPLITS_A_TABLE = 5
LABEL_WIDTH = 36


def print_inspection(found: Inspection, console: Console) -> None:
    """All tables, then what is worth a look, then the mistakes."""
    size = "" if found.bytes is None else f", {readable_bytes(found.bytes)}"
    console.print(Text.assemble((found.name, "bold"), f"  {found.format}, {counted(found.pieces, 'piece')}{size}"))
    tables = [texts_table(found), lengths_table(found)]
    examples = found.examples or {}
    tables += [examples_table({name: examples[name] for name in part}) for part in _groups(examples)]
    tables += [splits_table(found, part) for part in _groups(found.splits)]
    if found.candidates is not None:
        tables.append(candidates_table(found.candidates))
    if found.leakage:
        tables.append(leakage_table(found))
    for table in tables:
        console.print()
        console.print(table)
    console.print()
    doubtful = list(remarks(found))
    _print_lines("Worth a look", doubtful, "yellow", console)
    wrong, count = list(found.mistakes.some), found.mistakes.count
    if count > len(wrong):
        wrong.append(f"and {count - len(wrong):,} more")
    _print_lines(counted(count, "mistake"), wrong, "red", console)
    if not count:
        console.print("no mistakes" if doubtful else "nothing is wrong", style="green")


def texts_table(found: Inspection) -> Table:
    """Documents and queries side by side."""
    documents, queries, repeats = found.documents, found.queries, found.repeats
    table = _table("Texts", ["documents", "queries"])
    table.add_row("all", number(documents.documents), number(queries.queries))
    table.add_row("with a title", number(documents.with_title), "")
    table.add_row("empty", number(documents.empty.count, "yellow"), number(queries.empty.count, "yellow"))
    table.add_row("never judged", number(documents.never_judged), number(queries.unjudged.count, "yellow"))
    again = [number(each.count, "red") for each in (repeats.doc_ids, repeats.query_ids)]
    table.add_row("same id as one before", *again)
    copies = [number(each.count, "yellow") for each in (repeats.documents, repeats.queries)]
    table.add_row("same text as one before", *copies)
    return table


def lengths_table(found: Inspection) -> Table:
    """Tokens of documents and queries."""
    headings = ["counted", "min", "median", "mean", "p90", "p99", "max", *(f"> {limit}" for limit in LIMITS)]
    caption = f"of {found.tokenizer.rpartition('/')[2]}, without those that a model puts around a text"
    table = _table("Tokens", headings, label_width=10, caption=caption)
    for noun, lengths in (("documents", found.document_lengths), ("queries", found.query_lengths)):
        if lengths is not None:
            table.add_row(noun, *_length_cells(lengths))
    return table


def _length_cells(lengths: Lengths) -> list[Text]:
    numbers = [lengths.measured, lengths.min, lengths.median, lengths.mean, lengths.p90, lengths.p99, lengths.max]
    return [*(number(round(value)) for value in numbers), *(share(lengths.over[str(limit)]) for limit in LIMITS)]


def splits_table(found: Inspection, names: Sequence[str]) -> Table:
    """Some splits side by side."""
    splits = [found.splits[name] for name in names]
    table = _table("Judgements", names)
    table.add_row("judged queries", *(number(each.queries) for each in splits))
    table.add_row("judgements", *(number(each.judgements) for each in splits))
    for grade in sorted({grade for each in splits for grade in each.grades}, key=int, reverse=True):
        cells = (number(each.grades.get(grade, 0)) for each in splits)
        table.add_row(f"  of grade {grade}", *cells)
    table.add_row("relevant", *(number(each.relevant) for each in splits))
    table.add_row("  from grade", *(number(each.relevance_level) for each in splits))
    table.add_row("  a query, mean", *(_mean(each.relevant_a_query) for each in splits))
    table.add_row("  a query, most", *(_most(each.relevant_a_query) for each in splits))
    table.add_row("queries without a relevant document", *(_count(each.without_relevant, "yellow") for each in splits))
    table.add_row("judged documents not in the corpus", *(_count(each.missing_documents, "red") for each in splits))
    table.add_row("judged queries not among the queries", *(_count(each.missing_queries, "red") for each in splits))
    if found.triples:
        triples = [found.triples.get(name) for name in names]
        table.add_row("triples", *(number(each.triples if each else 0) for each in triples))
    return table


def candidates_table(candidates: CandidateCounts) -> Table:
    """How far the ranked lists reach in each split."""
    table = _table("Candidates", list(candidates.splits) or ["all"])
    reach = list(candidates.splits.values())
    if reach:
        table.add_row("judged queries with candidates", *(number(each.queries) for each in reach))
        table.add_row("relevant documents of those", *(number(each.relevant) for each in reach))
        table.add_row("  among the candidates", *(number(each.held) for each in reach))
        table.add_row("  as a share", *(Text("-", "dim") if e.share is None else share(e.share) for e in reach))
    sizes, first = candidates.documents_a_list, [""] * (max(len(reach), 1) - 1)
    table.add_row("lists, all splits", number(candidates.lists), *first)
    if sizes is not None:
        table.add_row("  documents a list", Text(f"{sizes.min:.0f} to {sizes.max:.0f}"), *first)
    table.add_row("  documents not in the corpus", _count(candidates.missing_documents, "yellow"), *first)
    return table


def examples_table(examples: Mapping[str, ExampleCounts]) -> Table:
    """Training examples of some splits side by side."""
    splits = list(examples.values())
    table = _table("Training examples", list(examples))
    table.add_row("groups", *(number(each.groups) for each in splits))
    table.add_row("documents", *(number(each.documents) for each in splits))
    table.add_row("  a group, mean", *(_mean(each.documents_a_group) for each in splits))
    table.add_row("  a group, most", *(_most(each.documents_a_group) for each in splits))
    labels = {label for each in splits for label in each.labels}
    for label in sorted(labels, key=lambda label: float(label.partition(" ")[0]), reverse=True):
        table.add_row(f"  labelled {label}", *(number(each.labels.get(label, 0)) for each in splits))
    table.add_row("positives a group, mean", *(_mean(each.positives_a_group) for each in splits))
    table.add_row("groups without a positive", *(_count(each.without_positive, "yellow") for each in splits))
    table.add_row("groups without a negative", *(_count(each.without_negative, "yellow") for each in splits))
    table.add_row("groups with a text twice", *(_count(each.with_copies, "yellow") for each in splits))
    table.add_row("groups with a teacher's scores", *(number(each.scored) for each in splits))
    return table


def leakage_table(found: Inspection) -> Table:
    """What each pair of splits shares."""
    headings = ["query ids", "query texts", "relevant documents", "texts of those"]
    table = _table("Shared between", headings, label_width=16)
    for pair, shared in found.leakage.items():
        counts = (shared.query_ids, shared.query_texts, shared.relevant_documents, shared.relevant_texts)
        table.add_row(pair, *(number(count, "yellow") for count in counts))
    return table


def remarks(found: Inspection) -> Iterator[str]:
    """What is no mistake and may still be one, with some ids."""
    repeats = found.repeats
    yield from _remark("empty documents", found.documents.empty)
    yield from _remark("empty queries", found.queries.empty)
    yield from _remark("documents with the same text as one before", repeats.documents)
    yield from _remark("queries with the same text as one before", repeats.queries)
    yield from _remark("judgements given twice", repeats.judgements)
    yield from _remark("queries without a judgement", found.queries.unjudged)
    for split, each in found.splits.items():
        yield from _remark(f"{split}: queries without a relevant document", each.without_relevant)
    for split, triples in found.triples.items():
        yield from _remark(f"{split}: documents of triples not in the corpus", triples.missing_documents)
        yield from _remark(f"{split}: queries of triples not among the queries", triples.missing_queries)
    if found.candidates is not None:
        yield from _remark("candidates not in the corpus", found.candidates.missing_documents)
        yield from _remark("candidates of unknown queries", found.candidates.missing_queries)
    for split, examples in (found.examples or {}).items():
        yield from _remark(f"{split}: groups without a positive", examples.without_positive)
        yield from _remark(f"{split}: groups without a negative", examples.without_negative)
        yield from _remark(f"{split}: groups with a text twice", examples.with_copies)
        if examples.fractional_labels:
            yield f"{split}: labels that are no whole number, so no judgements: {examples.fractional_labels:,}"
    for pair, shared in found.leakage.items():
        if shared.any:
            yield f"{pair}: the two splits share queries or relevant documents (see the table)"


def _remark(what: str, found: Some | Copies) -> Iterator[str]:
    if found.count:
        named = [_cut(each) if isinstance(each, str) else " = ".join(each) for each in found.some]
        more = ", ..." if found.count > len(named) else ""
        yield f"{what}: {found.count:,} ({', '.join(named)}{more})"


def _cut(name: str, width: int = 60) -> str:
    return name if len(name) <= width else f"{name[: width - 3]}..."


def print_names(names: Mapping[str, str], console: Console) -> None:
    """Names with what they are."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, purpose in names.items():
        table.add_row(Text(name, "bold"), Text(purpose))
    if names:
        console.print(table)
        console.print()


def _table(title: str, headings: Sequence[str], *, label_width: int = LABEL_WIDTH, caption: str = "") -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0), header_style="", caption=caption or None,
        caption_justify="left", caption_style="dim",
    )  # fmt: skip
    table.add_column(Text(title, "bold"), min_width=label_width, no_wrap=True)
    for heading in headings:
        table.add_column(Text(heading, "bold"), justify="right", overflow="fold")
    return table


def _groups(splits: Mapping[str, object]) -> Iterator[list[str]]:
    names = list(splits)
    for start in range(0, len(names), SPLITS_A_TABLE):
        yield names[start : start + SPLITS_A_TABLE]


def _print_lines(title: str, lines: Sequence[str], style: str, console: Console) -> None:
    if lines:
        console.print(title, style=f"bold {style}", highlight=False)
        for line in lines:
            console.print(Padding(Text(line, style), (0, 0, 0, 2), expand=False))
        console.print()


def number(value: float, style: str = "") -> Text:
    """With commas; dim where it is zero, otherwise in the style."""
    return Text(f"{value:,}", style if value else "dim")


def share(value: float) -> Text:
    """In percent; dim where it is zero."""
    return Text(f"{value:.1%}", "" if value else "dim")


def _count(found: Some, style: str) -> Text:
    return number(found.count, style)


def _mean(found: Spread | None) -> Text:
    return Text("-", "dim") if found is None else Text(f"{found.mean:.2f}")


def _most(found: Spread | None) -> Text:
    return Text("-", "dim") if found is None else Text(f"{found.max:,.0f}")


def counted(count: int, noun: str) -> str:
    """``1 piece``, ``3 pieces``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def readable_bytes(size: int) -> str:
    """``938 B``, ``1.4 GiB``."""
    amount, unit = float(size), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
