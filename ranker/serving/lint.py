"""What Ray Serve accepts silently in a config file, found before it is deployed.

Ray ignores unknown keys, so ``max_ongoing_request: 8`` deploys with the default, and so does a field in the
wrong place.
"""

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from ranker.config import ConfigError, Experiment
from ranker.manifest import StageError
from ranker.registry import nearest
from ranker.serving.artefacts import ServeArgs, documents_folder, find_artefacts
from ranker.serving.deployment_rules import contradictions
from ranker.serving.folder_rules import index_problems, outvoted, settings_problems
from ranker.serving.journal import JournalError, check_writable
from ranker.serving.schema_keys import unknown_keys
from ranker.serving.security import KEYS_FILE_VARIABLE, KEYS_VARIABLE, SecurityError, load_keys, require_keys

IMPORT_PATH = "ranker.serving.app:build"
DEPLOYMENTS = ("Gateway", "Retriever", "Reranker")


def check(path: str | Path, artefacts: bool = True) -> list[str]:
    """Everything that is wrong with a Serve config (or the one inside a RayService), a line each; empty when sound.

    Args:
        path: YAML file. artefacts: also look on this machine for the folders and keys that our application needs.
    """
    file = Path(path)
    try:
        plain = read_serve_config(file)
    except ValueError as error:
        return [str(error)]
    problems = [*unknown_keys(plain)]
    try:
        ServeDeploySchema.model_validate(_without_policies(plain))
    except ValidationError as error:
        problems += [f"{_dotted(detail['loc'])}: {detail['msg']}" for detail in error.errors()]
        return [f"{file}: {problem}" for problem in problems]
    problems += _check_applications(plain, artefacts)
    return [f"{file}: {problem}" for problem in problems]


def remarks(path: str | Path) -> list[str]:
    """What is no mistake and yet easily overlooked in a sound config, a line each: where user_config outvotes args."""
    found: list[str] = []
    try:
        applications = read_serve_config(Path(path))["applications"]
        for number, application in enumerate(applications):
            if _is_ours(application):
                given = ServeArgs.model_validate(application.get("args") or {})
                told = outvoted(given, application.get("deployments") or [])
                found += [f"{path}: applications.{number}.{remark}" for remark in told]
    except (ValueError, AttributeError, KeyError, TypeError):
        return []  # not sound: check() says why
    return found


def read_serve_config(file: Path) -> dict[str, Any]:
    """The Serve config of a file as plain values; for a RayService manifest that of ``spec.serveConfigV2``.

    Raises:
        ValueError: where there is no such file, no YAML, or no Serve config in it.
    """
    try:
        plain = yaml.safe_load(file.read_text("utf-8"))
        if isinstance(plain, dict) and plain.get("kind") == "RayService":
            plain = yaml.safe_load(plain["spec"]["serveConfigV2"])
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
    except (KeyError, TypeError) as error:
        raise ValueError(f"{file}: a RayService without spec.serveConfigV2") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not YAML: {error}") from error
    if not isinstance(plain, dict) or "applications" not in plain:
        raise ValueError(f"{file}: not a Serve config; it has no 'applications:'")
    return plain


def _without_policies(plain: dict[str, Any]) -> dict[str, Any]:
    """Ray imports a policy while it reads a config, and fails with whatever the import fails with."""
    copy = deepcopy(plain)
    for application in copy["applications"] if isinstance(copy["applications"], list) else ():
        for deployment in application.get("deployments") or [] if isinstance(application, dict) else ():
            if isinstance(scaling := deployment.get("autoscaling_config"), dict):
                scaling.pop("policy", None)
    return copy


def _check_applications(plain: dict[str, Any], artefacts: bool) -> Iterator[str]:
    options = plain.get("http_options") or {}
    yield from _check_options(options, artefacts)
    for number, application in enumerate(plain["applications"]):
        where = f"applications.{number}"
        args = application.get("args") or {}
        ours = _is_ours(application)
        if ours:
            yield from _check_args(args, options, artefacts, f"{where}.args")
        deployments = application.get("deployments") or []
        yield from _check_names([deployment["name"] for deployment in deployments], args, ours, f"{where}.deployments")
        for place, deployment in enumerate(deployments):
            for problem in contradictions(deployment, options, ours):
                yield f"{where}.deployments.{place}.{problem}"
            for problem in settings_problems(deployment) if ours and artefacts else ():
                yield f"{where}.deployments.{place}.{problem}"


def _is_ours(application: dict[str, Any]) -> bool:
    return bool(application["import_path"].replace(":", ".") == IMPORT_PATH.replace(":", "."))


def _check_options(options: dict[str, Any], artefacts: bool) -> Iterator[str]:
    if options.get("request_timeout_s") is None:
        yield "http_options.request_timeout_s: not set, so a request may wait for ever; say 30"
    for name in ("ssl_certfile", "ssl_keyfile"):
        file = options.get(name)
        if file and artefacts and not Path(file).is_file():
            yield f"http_options.{name}: {file} does not exist on this machine"


def _check_names(names: list[str], args: dict[str, Any], ours: bool, where: str) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{where}: {name!r} stands here {count} times; Ray takes the last"
    for place, name in enumerate(names):
        if ours and name not in DEPLOYMENTS:
            yield f"{where}.{place}.name: no deployment {name!r}; {nearest(name, [*DEPLOYMENTS])}"
        if ours and name == "Retriever" and args.get("retrieval") is False:
            yield f"{where}.{place}.name: args say retrieval: false, so there is no Retriever; leave it out"


def _check_args(args: dict[str, Any], options: dict[str, Any], artefacts: bool, where: str) -> Iterator[str]:
    try:
        given = ServeArgs.model_validate(args)
    except ValidationError as error:
        for detail in error.errors():
            name = _dotted(detail["loc"])
            hint = f"; {nearest(name, [*ServeArgs.model_fields])}" if detail["type"] == "extra_forbidden" else ""
            yield f"{where}.{name}: {detail['msg']}{hint}"
        return
    timeout = options.get("request_timeout_s")
    if timeout is not None and timeout <= given.deadline_s:
        yield (
            f"http_options.request_timeout_s: {timeout} is not above args.deadline_s {given.deadline_s:g}, so Ray's "
            "plain text answer comes before the JSON one"
        )
    if artefacts:
        yield from _check_folders(given, where)
        yield from _check_keys(given, options)
    else:
        yield from _check_overrides(given, where)


def _check_folders(given: ServeArgs, where: str) -> Iterator[str]:
    try:
        found = find_artefacts(given)
    except (StageError, ConfigError, FileNotFoundError) as error:
        yield f"{where}: {error}"
        return
    if found.index is None or found.corpus is None:
        return
    for problem in index_problems(found.index, found.corpus):
        yield f"{where}.index: {problem}"
    if given.writable:
        try:
            check_writable(documents_folder(given, found.index))
        except JournalError as error:
            yield f"{where}.documents: {error}"


def _check_keys(given: ServeArgs, options: dict[str, Any]) -> Iterator[str]:
    try:
        keys = load_keys(given.api_keys_file)
        require_keys([options.get("host", "0.0.0.0")], keys, given.allow_open)
    except SecurityError as error:
        yield f"http_options.host: {error} (looked for {KEYS_VARIABLE} and {KEYS_FILE_VARIABLE} here)"
        return
    if keys.closed and not keys.keys:
        yield "the file of API keys holds none, so every request would be refused; `ranker serve key` makes one"


def _check_overrides(given: ServeArgs, where: str) -> Iterator[str]:
    try:
        Experiment().with_overrides(given.overrides)
    except ConfigError as error:
        yield f"{where}.overrides: {error}"


def _dotted(location: tuple[Any, ...]) -> str:
    return ".".join(map(str, location))
