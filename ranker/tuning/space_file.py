"""Read a space file: every line checked, all mistakes told at once.

.. code-block:: yaml

    train.lora.enabled: true                                             # the same in every trial
    train.learning_rate: {sampler: loguniform, lower: 1e-5, upper: 1e-3} # drawn
    train.lora.r: {sampler: choice, categories: [4, 8, 16]}
    train.lora.alpha: {multiple_of: train.lora.r, factor: 2}             # tied
    train.schedule, train.warmup_ratio: {sampler: choice, categories: [[linear, 0.1], [constant, 0.0]]}  # together
    train.loss: {sampler: choice, categories: [lce, bce]}
    train.loss_options.pos_weight: {sampler: uniform, lower: 1, upper: 8, when: {train.loss: bce}}
    constraints: [train.batch_size * train.group_size <= 256]
    first: {train.learning_rate: 1e-4}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ranker.config import known_paths
from ranker.registry import nearest
from ranker.tuning.expressions import Expression, ExpressionError
from ranker.tuning.samplers import SAMPLERS, could_give, make_sampler, number
from ranker.tuning.space import Entry, Space, SpaceError, together

# Options of a loss are an open mapping: their names are the loss's own, checked with the values of a trial.
OPEN = ("train.loss_options.", "train.distill.loss_options.")
# What may vary. The rest decides on what trials are compared, or where they run.
VARIED = ("train.", "mine.")
NOT_VARIED = {
    "train.groups": "trials learn from the same groups",
    "mine.num_dev_queries": "trials are compared on the same dev queries",
    "mine.dev_depth": "trials are compared on the same dev candidates",
    **dict.fromkeys(("train.output_dir", "mine.output_dir", "train.storage", "train.track"),
                    "it does not change the result"),
    "train.metric": "tune.metric decides",
}  # fmt: skip
LINE = ("multiple_of", "value", "sampler")
RESERVED = ("constraints", "first")


@dataclass
class Mistakes:
    """What is wrong in a file, and which paths it concerns: of those nothing more can be said.

    Args:
        lines: one a mistake. paths: of entries that cannot be used.
    """

    lines: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def add(self, line: str, *paths: str) -> None:
        """One more."""
        self.lines.append(line)
        self.paths.update(paths)


def load_space(path: str | Path) -> Space:
    """Read a space file.

    Raises:
        FileNotFoundError: where there is no such file.
        SpaceError: all mistakes at once: unknown paths and samplers with the nearest names, bad arguments, ties,
            conditions and constraints.
    """
    return parse_space(read_plain(path), str(Path(path).expanduser()))


def read_plain(path: str | Path) -> dict[str, Any]:
    """The lines of a space file as they are; errors as of :func:`load_space`."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such space file; the ones that ship are in tune_spaces/")
    try:
        plain = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpaceError(f"{file}: not YAML: {error}") from error
    if not isinstance(plain, dict) or not plain:
        raise SpaceError(f"{file}: must hold lines such as 'train.learning_rate: {{sampler: loguniform, ...}}'")
    return plain


def parse_space(plain: Mapping[str, Any], where: str = "space") -> Space:
    """The space of a plain mapping, checked as :func:`load_space` does."""
    space, mistakes = read_space(plain)
    if mistakes.lines:
        raise SpaceError(told(where, mistakes.lines))
    return space


def read_space(plain: Mapping[str, Any]) -> tuple[Space, Mistakes]:
    """The space of those lines that can be read, and what is wrong with the others."""
    mistakes = Mistakes()
    entries = _entries(plain, mistakes)
    ordered = _ordered(entries, mistakes)
    constraints = _constraints(plain.get("constraints") or [], mistakes)
    first = _first(plain.get("first") or {}, entries, mistakes)
    if not mistakes.lines and not any(entry.sampler for entry in entries):
        mistakes.add("nothing is sampled, so that all trials would be one; give a path a sampler")
    return Space(tuple(ordered), tuple(constraints), first, plain), mistakes


def told(where: str, problems: list[str]) -> str:
    """Mistakes as one message, a line each."""
    problems = list(dict.fromkeys(problems))
    count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    return "\n".join([f"{where}: {count}", *(f"  {problem}" for problem in problems)])


def path_problem(path: str) -> str | None:
    """Why a path cannot vary; None where it can."""
    known = known_paths()
    if path in NOT_VARIED:
        return f"may not vary: {NOT_VARIED[path]}"
    if path.startswith(OPEN) or path == "seed":
        return None
    if path in known:
        hint = "trials are compared on the same data, with the same measure"
        return None if path.startswith(VARIED) else f"only train.*, mine.* and seed may vary: {hint}"
    return f"unknown; {nearest(path, [name for name in known if name.startswith(VARIED)])}"


def _entries(plain: Mapping[str, Any], mistakes: Mistakes) -> list[Entry]:
    entries = list[Entry]()
    for key, value in plain.items():
        if key in RESERVED:
            continue
        paths = tuple(path.strip() for path in str(key).split(","))
        for path in paths:
            if problem := path_problem(path):
                mistakes.add(f"{path}: {problem}", *paths)
        alternatives = value if _is_alternatives(value) else [value]
        for place, line in enumerate(alternatives, 1):
            name = f"{key}#{place}" if len(alternatives) > 1 else str(key)
            entry = _entry(name, paths, line)
            if isinstance(entry, str):
                mistakes.add(f"{name}: {entry}", *paths)
            else:
                entries.append(entry)
    return entries


def _is_alternatives(value: Any) -> bool:
    """Whether a line is a list of lines and no plain list (`mine.candidates: [index, bm25]`)."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and set(LINE) & set(v) for v in value)


def _entry(name: str, paths: tuple[str, ...], line: Any) -> Entry | str:
    if not isinstance(line, dict) or (paths[0] + "." in OPEN and not set(LINE) & set(line)):
        line = {"value": line}
    when, line = line.get("when") or {}, {key: part for key, part in line.items() if key != "when"}
    if not isinstance(when, dict):
        return f"write {{when: {{PATH: VALUE or [VALUES]}}}}, not {when!r}"
    conditions = {str(path): tuple(number(told if isinstance(told, list) else [told])) for path, told in when.items()}
    if "sampler" in line:
        return _sampled(name, paths, line, conditions)
    if len(paths) > 1:
        return "several paths need a sampler: choice of lists"
    if "multiple_of" in line:
        return _tied(name, paths, line, conditions)
    if set(line) == {"value"}:
        return Entry(name, paths, value=number(line["value"]), when=conditions)
    return f"{line} names neither a sampler nor multiple_of nor value; samplers: {', '.join(SAMPLERS)}"


def _sampled(name: str, paths: tuple[str, ...], line: Mapping[str, Any], when: Mapping[str, Any]) -> Entry | str:
    sampler = make_sampler(line)
    if isinstance(sampler, str):
        return sampler
    if len(paths) > 1 and (wrong := _not_joint(line, len(paths))):
        return wrong
    return Entry(name, paths, sampler=sampler, when=when)


def _not_joint(line: Mapping[str, Any], width: int) -> str | None:
    categories = line.get("categories")
    if line["sampler"] != "choice" or not all(isinstance(c, list) and len(c) == width for c in categories or [0]):
        return f"{width} paths need {{sampler: choice, categories: [[{', '.join(['VALUE'] * width)}], ...]}}"
    return None


def _tied(name: str, paths: tuple[str, ...], line: Mapping[str, Any], when: Mapping[str, Any]) -> Entry | str:
    factor = number(line.get("factor", 1))
    if set(line) - {"multiple_of", "factor"} or not isinstance(factor, int | float) or isinstance(factor, bool):
        return f"write {{multiple_of: PATH, factor: NUMBER}}, not {dict(line)}"
    return Entry(name, paths, tied=(str(line["multiple_of"]), factor), when=when)


def _ordered(entries: list[Entry], mistakes: Mistakes) -> list[Entry]:
    """Each entry behind those that it needs, else in the order of the file."""
    paths = {path for entry in entries for path in entry.paths}
    for entry in entries:
        for path in entry.needs:
            if path not in paths and (wrong := path_problem(path)) and wrong.startswith("unknown"):
                noun = "multiple_of" if entry.tied and path == entry.tied[0] else "when"
                mistakes.add(f"{entry.name}: {noun} {path!r} is {wrong}", *entry.paths)
    done, left = list[Entry](), list(entries)
    while left:
        waiting = {path for entry in left for path in entry.paths}
        ready = next((entry for place, entry in enumerate(left) if _is_ready(entry, left[:place], waiting)), None)
        if ready is None or set(ready.needs) & set(ready.paths):
            circle = ready or left[0]
            mistakes.add(f"{circle.name}: needs {list(circle.needs)}, which needs it in turn", *waiting)
            return list(entries)
        done.append(ready)
        left.remove(ready)
    return done


def _is_ready(entry: Entry, before: list[Entry], waiting: set[str]) -> bool:
    """Whether all that an entry needs is known; alternatives keep their order, since the first that counts decides."""
    if any(set(entry.paths) & set(other.paths) for other in before):
        return False
    return not (set(entry.needs) - set(entry.paths)) & waiting


def _constraints(lines: Any, mistakes: Mistakes) -> list[Expression]:
    if not isinstance(lines, list):
        mistakes.add(f"constraints: must be a list of comparisons, not {lines!r}")
        return []
    found, known = list[Expression](), known_paths()
    for line in lines:
        try:
            expression = Expression.parse(str(line))
        except ExpressionError as error:
            mistakes.add(f"constraints: {error}")
            continue
        unknown = [path for path in expression.paths if path not in known and not path.startswith(OPEN)]
        for path in unknown:
            hint = nearest(path, known)
            mistakes.add(f"constraints: {line!r}: {path!r} is unknown (texts stand in quotes); {hint}")
        if not unknown:
            found.append(expression)
    return found


def _first(values: Any, entries: list[Entry], mistakes: Mistakes) -> dict[str, Any]:
    if not isinstance(values, dict):
        mistakes.add(f"first: must be a mapping of paths to values, not {values!r}")
        return {}
    wished = {str(path): number(value) for path, value in values.items()}
    for path, value in wished.items():
        sampled = [entry for entry in entries if entry.sampler and path in entry.paths]
        if not sampled and path not in mistakes.paths:  # otherwise its line is told already
            paths = [path for entry in entries if entry.sampler for path in entry.paths]
            mistakes.add(f"first: {path!r} is not sampled in this file; {nearest(path, paths)}")
        elif sampled and not any(_may_begin(entry, wished) for entry in sampled):
            told_together = {name: wished[name] for name in sampled[0].paths if name in wished}
            never = (
                repr(value) if len(told_together) == 1 else ", ".join(f"{n} {v!r}" for n, v in told_together.items())
            )
            mistakes.add(f"first: {', '.join(told_together)}: the sampler never gives {never}")
    return wished


def _may_begin(entry: Entry, wished: Mapping[str, Any]) -> bool:
    if len(entry.paths) > 1:
        return bool(together(entry, wished))
    return entry.sampler is not None and could_give(entry.sampler, wished[entry.paths[0]])
