"""What a mining run did, to look at: counts, score distributions, and examples."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from ranker.config import Experiment, MineConfig
from ranker.manifest import write_text
from ranker.schemas import Collection
from ranker.scoring.scorer import probabilities
from ranker.training.candidates import INDEX
from ranker.training.choosing import Chosen
from ranker.training.mining_examples import markdown_examples, markdown_table, plain
from ranker.training.mining_plot import Panel, Values, score_plot
from ranker.training.negatives import Depth
from ranker.training.sources import BM25, DATA

EXAMPLES = 20
# Share of the queries from which on something is worth a hint.
MANY = 0.1

# Filters that a user sets: name of the rule -> (what it removes, what to do where it removes too much).
FILTERS = {
    "near_duplicate": ("nearly the text of a right answer: {near_duplicates:g} or more of the word trigrams in common",
                       "raise `mine.near_duplicates`"),
    "absolute_margin": ("{score} less than {absolute_margin:g} below that of the lowest right answer",
                        "lower `mine.absolute_margin`"),
    "relative_margin": ("{score} above {kept:g}% of that of the lowest right answer", "lower `mine.relative_margin`"),
    "max_score": ("{score} above {max_score:g}", "raise `mine.max_score`"),
    "min_score": ("{score} below {min_score:g}", "lower `mine.min_score`"),
}  # fmt: skip
MEANINGS = {
    "copy_of_positive": "the text of a right answer",
    "copy_of_candidate": "the text of a candidate further up in the list",
    "held_out": "a right answer of a query of another split, or the text of one",
    "positive": "a right answer itself",
} | {rule: meaning for rule, (meaning, _) in FILTERS.items()}


@dataclass(frozen=True)
class Scored:
    """Scores of one kind over all queries.

    Args:
        name: of the kind. right: of right answers. wrong: of negatives, where known. found: of the right answers that
            the teacher found.
        compared: queries with both. doubtful: those of them whose best right answer lies below the median of their
            negatives.
    """

    name: str
    right: Values
    wrong: Values
    found: Values
    compared: int
    doubtful: int

    @classmethod
    def of(cls, name: str, rows: Iterable[tuple[Sequence[float], Sequence[float]]], found: Values) -> "Scored":
        """Of (scores of right answers, scores of negatives) of each query."""
        right, wrong, compared, doubtful = array("d"), array("d"), 0, 0
        for answers, negatives in rows:
            right.extend(answers)
            wrong.extend(negatives)
            if answers and negatives:
                compared += 1
                doubtful += max(answers) < median(negatives)
        return cls(name, np.array(right), np.array(wrong), found, compared, doubtful)


def write_report(
    folder: Path, train: Collection, chosen: Chosen, outcome: Mapping[str, Any], config: Experiment
) -> None:
    """Write ``report.md`` and ``scores.png`` into ``folder``.

    Args:
        outcome: counts of the run. Of the texts only those of the examples are read.
    """
    scores = measured(chosen, config.mine)
    (folder / "scores.png").write_bytes(score_plot([_panel(scored) for scored in scores]))
    examples = markdown_examples(train, chosen, EXAMPLES, config.seed)
    lines = [f"# Hard negatives of {plain(train.name)}", "", *_what_was_done(train, chosen, config), ""]
    lines += ["## Negatives a query", "", *_by_query(outcome, config.mine), ""]
    lines += ["## Candidates", "", *_by_rule(outcome, config.mine), ""]
    lines += ["## Scores", "", *_by_score(scores, outcome), "", "![distribution of the scores](scores.png)", ""]
    hints = [f"- {hint}" for hint in [*_short_of(outcome, config.mine), *_doubts(scores)]]
    lines += ["## To look at", "", *hints, ""] if hints else []
    lines += ["## Examples", "", "A sample of the queries that got a negative, each with the best of the candidates "
              "that a rule removed.", "", *examples]  # fmt: skip
    write_text(folder / "report.md", "\n".join(lines))


def measured(chosen: Chosen, mine: MineConfig) -> list[Scored]:
    """Similarities, and the teacher's probabilities where there is a teacher."""
    pool = chosen.pool
    similar = (
        (answers, [value for value, rank in zip(choice.similarities, choice.ranks, strict=True) if rank])
        for answers, choice in zip(pool.answer_scores, chosen.choices, strict=True)
    )
    scores = [Scored.of("similarity", similar, np.zeros(0))]
    if mine.teacher.model is not None:
        told = (
            (_likely(choice.logits, answers), _likely(choice.logits, choice.negatives))
            for answers, choice in zip(pool.known.answers, chosen.choices, strict=True)
        )
        found = array("d")
        for choice in chosen.choices:
            found.extend(_likely(choice.logits, choice.relabelled))
        scores.append(Scored.of("probability", told, np.array(found)))
    return scores


def _likely(logits: Mapping[int, float], keys: Sequence[int]) -> list[float]:
    known = [logits[key] for key in keys if key in logits]
    return list(probabilities(known).tolist()) if known else []


def _panel(scored: Scored) -> Panel:
    if scored.name == "similarity":
        return Panel("How near right answers and negatives are", "similarity to the query", scored.right, scored.wrong)
    title = "What the teacher thinks of them"
    return Panel(title, "probability of being relevant", scored.right, scored.wrong, (0.0, 1.0))


def _what_was_done(train: Collection, chosen: Chosen, config: Experiment) -> list[str]:
    mine = config.mine
    depth = Depth.of(mine, chosen.pool.known.max_positives)
    width = min(depth.width, train.documents.num_rows)
    names = {INDEX: f"the vector index (`{config.index.model}`)", BM25: "BM25", DATA: "the data set's own run"}
    sources = " and ".join(names.get(name, f"the run `{name}`") for name in mine.candidates)
    said = [
        f"For each of {train.queries.num_rows:,} train queries up to {width:,} candidates of different texts came from "
        f"{sources}{', in turn' if len(mine.candidates) > 1 else ''}.",
        f"Filters in force: {_filters(mine)}.",
        *_teacher(mine),
        f"Of those that passed, {_picked(mine, depth, config.seed)} became negatives.",
    ]
    return [" ".join(said)]


def _filters(mine: MineConfig) -> str:
    names = ("near_duplicates", "absolute_margin", "relative_margin", "max_score", "min_score")
    values = {name: getattr(mine, name) for name in names}
    return (
        ", ".join(f"`{name}` {value:g}" for name, value in values.items() if value is not None) or "only the judgements"
    )


def _asked(mine: MineConfig) -> bool:
    """Whether the filters read the teacher's probabilities."""
    return mine.teacher.model is not None and mine.teacher.action != "score"


def _teacher(mine: MineConfig) -> list[str]:
    if mine.teacher.model is None:
        return ["There was no teacher."]
    fate = {"drop": "was left out", "relabel": "became a right answer"}
    if not _asked(mine):
        return [f"The teacher `{mine.teacher.model}` only scored what was chosen; the filters read similarities."]
    return [
        f"The teacher `{mine.teacher.model}` read every candidate, and the filters of scores read its probabilities; "
        f"what a margin or `max_score` removed {fate[mine.teacher.action]}."
    ]


def _picked(mine: MineConfig, depth: Depth, seed: int) -> str:
    num_random = round(mine.random_ratio * mine.num_negatives)
    number = mine.num_negatives - num_random
    which = f"the best {number}" if mine.sampling_strategy == "top" else f"{number} drawn with seed {seed}"
    reach = f" of the first {depth.last}" if depth.last is not None and mine.sampling_strategy == "random" else ""
    skipped = f", the best {mine.range_min} skipped" if mine.range_min else ""
    rest = f", and {num_random} drawn from the whole corpus," if num_random else ""
    return f"{which}{reach}{skipped}{rest}"


def _by_query(outcome: Mapping[str, Any], mine: MineConfig) -> list[str]:
    counts = {int(count): queries for count, queries in outcome["queries_by_negatives"].items()}
    rows = [[f"{count}", f"{counts[count]:,}", _share(counts[count], outcome["queries"])] for count in sorted(counts)]
    said = [
        f"{outcome['negatives']:,} negatives in {outcome['groups']:,} training groups.",
        f"Drawn at random from the corpus: {outcome['drawn_at_random']:,}.",
    ]
    if _asked(mine) and mine.teacher.action == "relabel":
        said.append(f"Made right answers by the teacher: {outcome['relabelled']:,}.")
    return [*markdown_table(["negatives", "queries", "share"], rows, range(3)), "", " ".join(said)]


def _by_rule(outcome: Mapping[str, Any], mine: MineConfig) -> list[str]:
    words = mine.model_dump(exclude={"teacher"})
    words |= {"score": "probability" if _asked(mine) else "similarity", "kept": 100 * (1 - (mine.relative_margin or 0))}
    rows = [
        [f"`{rule}`", MEANINGS[rule].format(**words), f"{count:,}", _share(count, outcome["candidates"])]
        for rule, count in outcome["removed"].items()
    ]  # fmt: skip
    return [
        f"{outcome['candidates']:,} candidates were looked at. Each that was removed counts for the first rule that it "
        "met. Documents judged irrelevant pass margins, `max_score` and `min_score`.",
        "",
        *markdown_table(["rule", "removes", "candidates", "share"], rows, (2, 3)),
    ]


def _by_score(scores: Sequence[Scored], outcome: Mapping[str, Any]) -> list[str]:
    rows = []
    for scored in scores:
        kinds = {"right answers": scored.right, "right answers that the teacher found": scored.found,
                 "negatives": scored.wrong}  # fmt: skip
        for kind, values in kinds.items():
            if len(values):
                numbers = [f"{number:.3f}" for number in np.percentile(values, [5, 50, 95])]
                rows.append([f"{scored.name} of {kind}", f"{len(values):,}", *numbers])
    lines = markdown_table(["score", "documents", "5%", "median", "95%"], rows, range(1, 5))
    if outcome["drawn_at_random"]:
        lines += ["", "The similarity of documents drawn at random is not known."]
    return lines


def _short_of(outcome: Mapping[str, Any], mine: MineConfig) -> list[str]:
    """A hint where many queries got fewer negatives than asked for."""
    short = sum(
        queries for count, queries in outcome["queries_by_negatives"].items() if int(count) < mine.num_negatives
    )
    if short < MANY * outcome["queries"]:
        return []
    said = f"Queries with fewer than {mine.num_negatives} negatives: {short:,} ({_share(short, outcome['queries'])})."
    removed = {rule: count for rule, count in outcome["removed"].items() if rule in FILTERS and count}
    if not removed:
        return [f"{said} No filter removed candidates: raise `mine.range_max` or `mine.num_candidates`."]
    rule = max(removed, key=lambda name: removed[name])
    further = "" if rule == "min_score" else ", or raise `mine.range_max` to look further down the lists"
    return [f"{said} `{rule}` removed most candidates ({removed[rule]:,}): {FILTERS[rule][1]}{further}."]


def _doubts(scores: Sequence[Scored]) -> list[str]:
    """Hints where right answers score below negatives in many queries."""
    judge = {"similarity": "the retriever", "probability": "the teacher"}
    return [
        f"Queries whose best right answer has a lower {scored.name} than half of their negatives: {scored.doubtful:,} "
        f"({_share(scored.doubtful, scored.compared)}). The labels or {judge[scored.name]} may be wrong there."
        for scored in scores
        if scored.compared and scored.doubtful >= MANY * scored.compared
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / max(1, whole):.1%}"
