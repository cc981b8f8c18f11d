"""The user's spelling of a measure and the ir-measures object behind it."""

import re
from collections.abc import Iterable

import ir_measures

from ranker.registry import nearest

DEFAULT_MEASURES = ("ndcg@10", "mrr@10", "map", "hit_rate@10")

# The user's spelling -> ir-measures' name (https://ir-measur.es/en/latest/measures.html); trec_eval's names too.
ALIASES = {
    "ndcg": "nDCG",
    "ndcg_cut": "nDCG",
    "mrr": "RR",
    "rr": "RR",
    "recip_rank": "RR",
    "map": "AP",
    "ap": "AP",
    "map_cut": "AP",
    "hit_rate": "Success",
    "hit": "Success",
    "success": "Success",
    "recall": "R",
    "r": "R",
    "precision": "P",
    "p": "P",
    "judged": "Judged",
}
NEED_CUTOFF = ("Success", "R", "P", "Judged")
# Letters, words apart by a space, hyphen or underscore; parameters; @10, or _10 as trec_eval writes it.
_SPELLING = re.compile(r"^\s*([A-Za-z]+(?:[ _-][A-Za-z]+)*)\s*(\([^)]*\))?\s*(?:[@_]\s*(\d+))?\s*$")


class MeasureError(ValueError):
    """A measure that nobody knows, that lacks its cutoff, or that cannot be computed."""


def parse(name: str, relevance_level: int = 1) -> ir_measures.Measure:
    """The ir-measures object for ``ndcg@10``, ``mrr(rel=2)@10``, ``Hit Rate@10``, ``map``, ``judged@10`` ...

    Args:
        relevance_level: from which judgement on a binary measure counts a document as relevant, where its name does not
            say it (2 in TREC DL).

    Raises:
        MeasureError: with the nearest known spellings, or naming the missing cutoff.
    """
    match = _SPELLING.match(name)
    word = re.sub("[ -]", "_", match[1].lower()) if match else name
    if not match or word not in ALIASES:
        raise MeasureError(f"unknown measure {name!r}; {nearest(word, list(ALIASES))}, as in {DEFAULT_MEASURES}")
    official = ALIASES[word]
    if match[3] is None and official in NEED_CUTOFF:
        raise MeasureError(f"measure {name!r} needs a cutoff, as in {name.strip()}@10")
    if match[3] is not None and int(match[3]) < 1:
        raise MeasureError(f"measure {name!r}: the cutoff must be at least 1, as in {match[1]}@10")
    spelled = f"{official}{match[2] or ''}{'@' + str(int(match[3])) if match[3] else ''}"
    measure = _parsed(name, spelled)
    if relevance_level != 1 and "rel" in measure.SUPPORTED_PARAMS and "rel" not in measure.params:
        measure = measure(rel=relevance_level)
    return measure


def _parsed(name: str, spelled: str) -> ir_measures.Measure:
    try:
        measure = ir_measures.parse_measure(spelled)
    except (ValueError, NameError, SyntaxError, TypeError) as error:
        raise MeasureError(f"measure {name!r}: {error}") from error
    if unknown := measure.params.keys() - measure.SUPPORTED_PARAMS.keys():
        known = sorted(measure.SUPPORTED_PARAMS)
        raise MeasureError(f"measure {name!r}: unknown parameter {sorted(unknown)}; known: {known}")
    try:
        measure.validate_params()
    except (AssertionError, ValueError) as error:  # ir-measures asserts
        raise MeasureError(f"measure {name!r}: {error}") from error
    if measure.params.get("dcg", "log2") != "log2":
        raise MeasureError(
            f"measure {name!r}: only dcg='log2' is computed here; exponential gains are written "
            "ndcg(gains={0: 0, 1: 1, 2: 3, 3: 7})@10"
        )
    return measure


def deepest_cutoff(measures: Iterable[ir_measures.Measure]) -> int | None:
    """Documents a list that the measures look at; None where one of them looks at all."""
    cutoffs = [measure.params.get("cutoff") for measure in measures]
    return None if None in cutoffs else max(cutoffs, default=None)
