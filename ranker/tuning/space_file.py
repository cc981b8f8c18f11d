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
from pathlib import Path
from typing import Any

import yaml

from ranker.config import known_paths
from ranker.registry import nearest
from ranker.tuning.expressions import Expression, ExpressionError
from ranker.tuning.samplers import SAMPLERS, could_give, make_sampler
from ranker.tuning.space import Entry, Space, SpaceError

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


def load_space(path: str | Path) -> Space:
    """Read a space file.

    Raises:
        FileNotFoundError: where there is no such file.
        SpaceError: all mistakes at once: unknown paths and samplers with the nearest names, bad arguments, ties,
            conditions and constraints.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such space file; the ones that ship are in tune_spaces/")
    try:
        plain = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpaceError(f"{file}: not YAML: {error}") from error
    if not isinstance(plain, dict) or not plain:
        raise SpaceError(f"{file}: must hold lines such as 'train.learning_rate: {{sampler: loguniform, ...}}'")
    return parse_space(plain, str(file))


def parse_space(plain: Mapping[str, Any], where: str = "space") -> Space:
    """The space of a plain mapping, checked as :func:`load_space` does."""
    entries, problems = _entries(plain)
    ordered = _ordered(entries, problems)
    constraints = _constraints(plain.get("constraints") or [], problems)
    first = _first(plain.get("first") or {}, entries, problems)
    if not problems and not any(entry.sampler for entry in entries):
        problems.append("nothing is sampled, so that all trials would be one; give a path a sampler")
    if problems:
        raise SpaceError(told(where, problems))
    return Space(tuple(ordered), tuple(constraints), first, plain)


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


def _entries(plain: Mapping[str, Any]) -> tuple[list[Entry], list[str]]:
    entries, problems = list[Entry](), list[str]()
    for key, value in plain.items():
        if key in RESERVED:
            continue
        paths = tuple(path.strip() for path in str(key).split(","))
        wrong = [f"{path}: {problem}" for path in paths if (problem := path_problem(path))]
        alternatives = value if _is_alternatives(value) else [value]
        for number, line in enumerate(alternatives, 1):
            name = f"{key}#{number}" if len(alternatives) > 1 else str(key)
            entry = _entry(name, paths, line)
            if isinstance(entry, str):
                wrong.append(f"{name}: {entry}")
            else:
                entries.append(entry)
        problems += wrong
    return entries, problems


def _is_alternatives(value: Any) -> bool:
    """Whether a line is a list of lines and no plain list (`mine.candidates: [index, bm25]`)."""
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) and set(LINE) & set(v) for v in value)


def _entry(name: str, paths: tuple[str, ...], line: Any) -> Entry | str:
    if not isinstance(line, dict) or (paths[0] + "." in OPEN and not set(LINE) & set(line)):
        line = {"value": line}
    when, line = line.get("when") or {}, {key: part for key, part in line.items() if key != "when"}
    if not isinstance(when, dict):
        return f"write {{when: {{PATH: VALUE or [VALUES]}}}}, not {when!r}"
    conditions = {str(path): tuple(told) if isinstance(told, list) else (told,) for path, told in when.items()}
    if "sampler" in line:
        return _sampled(name, paths, line, conditions)
    if len(paths) > 1:
        return "several paths need a sampler: choice of lists"
    if "multiple_of" in line:
        return _tied(name, paths, line, conditions)
    if set(line) == {"value"}:
        return Entry(name, paths, value=line["value"], when=conditions)
    return f"{line} names neither a sampler nor multiple_of nor value; samplers: {', '.join(SAMPLERS)}"


def _sampled(name: str, paths: tuple[str, ...], line: Mapping[str, Any], when: Mapping[str, Any]) -> Entry | str:
    sampler = make_sampler(line)
    if isinstance(sampler, str):
        return sampler
    if len(paths) > 1 and (wrong := _not_joint(line, len(paths))):
        return wrong
    return Entry(name, paths, sampler=sampler, when=when)


def _not_joint(line: Mapping[str, Any], number: int) -> str | None:
    categories = line.get("categories")
    if line["sampler"] != "choice" or not all(isinstance(c, list) and len(c) == number for c in categories or [0]):
        return f"{number} paths need {{sampler: choice, categories: [[{', '.join(['VALUE'] * number)}], ...]}}"
    return None


def _tied(name: str, paths: tuple[str, ...], line: Mapping[str, Any], when: Mapping[str, Any]) -> Entry | str:
    factor = line.get("factor", 1)
    if set(line) - {"multiple_of", "factor"} or not isinstance(factor, int | float) or isinstance(factor, bool):
        return f"write {{multiple_of: PATH, factor: NUMBER}}, not {dict(line)}"
    return Entry(name, paths, tied=(str(line["multiple_of"]), factor), when=when)


def _ordered(entries: list[Entry], problems: list[str]) -> list[Entry]:
    """Each entry behind those that it needs, else in the order of the file."""
    paths = {path for entry in entries for path in entry.paths}
    for entry in entries:
        for path in entry.needs:
            if path not in paths and (wrong := path_problem(path)) and wrong.startswith("unknown"):
                noun = "multiple_of" if entry.tied and path == entry.tied[0] else "when"
                problems.append(f"{entry.name}: {noun} {path!r} is {wrong}")
    done, left = list[Entry](), list(entries)
    while left:
        waiting = {path for entry in left for path in entry.paths}
        ready = next((entry for entry in left if not (set(entry.needs) - set(entry.paths)) & waiting), None)
        if ready is None or set(ready.needs) & set(ready.paths):
            circle = ready or left[0]
            problems.append(f"{circle.name}: needs {list(circle.needs)}, which needs it in turn")
            return list(entries)
        # All alternatives of a path keep their order, since the first that counts decides.
        done.append(ready)
        left.remove(ready)
    return done


def _constraints(lines: Any, problems: list[str]) -> list[Expression]:
    if not isinstance(lines, list):
        problems.append(f"constraints: must be a list of comparisons, not {lines!r}")
        return []
    found = []
    for line in lines:
        try:
            expression = Expression.parse(str(line))
        except ExpressionError as error:
            problems.append(f"constraints: {error}")
            continue
        known = [*known_paths()]
        problems += [
            f"constraints: {line!r}: {path!r} is unknown (texts stand in quotes); {nearest(path, known)}"
            for path in expression.paths
            if path not in known and not path.startswith(OPEN)
        ]
        found.append(expression)
    return found


def _first(values: Any, entries: list[Entry], problems: list[str]) -> dict[str, Any]:
    if not isinstance(values, dict):
        problems.append(f"first: must be a mapping of paths to values, not {values!r}")
        return {}
    found = {}
    for path, value in values.items():
        sampled = [entry for entry in entries if entry.sampler and path in entry.paths]
        value = _like_yaml_12(value)
        if not sampled:
            paths = [path for entry in entries if entry.sampler for path in entry.paths]
            problems.append(f"first: {path!r} is not sampled in this file; {nearest(str(path), paths)}")
        elif all(len(entry.paths) == 1 and entry.sampler and not could_give(entry.sampler, value) for entry in sampled):
            problems.append(f"first: {path}: the sampler never gives {value!r}")
        found[str(path)] = value
    return found


def _like_yaml_12(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
