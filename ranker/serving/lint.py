"""What Ray Serve accepts silently in a config file, found before it is deployed.

Ray ignores unknown keys, so ``max_ongoing_request: 8`` deploys with the default, and so does a field in the
wrong place.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from ranker.config import ConfigError
from ranker.manifest import StageError
from ranker.registry import nearest
from ranker.serving.artefacts import ServeArgs, find_artefacts
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
    problems = [*_unknown_keys(plain, ServeDeploySchema, "")]
    try:
        ServeDeploySchema.model_validate(plain)
    except ValidationError as error:
        problems += [f"{_dotted(detail['loc'])}: {detail['msg']}" for detail in error.errors()]
        return [f"{file}: {problem}" for problem in problems]
    problems += _check_applications(plain, artefacts)
    return [f"{file}: {problem}" for problem in problems]


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


def _check_applications(plain: dict[str, Any], artefacts: bool) -> Iterator[str]:
    options = plain.get("http_options") or {}
    for number, application in enumerate(plain["applications"]):
        where = f"applications.{number}"
        args = application.get("args") or {}
        ours = application["import_path"].replace(":", ".") == IMPORT_PATH.replace(":", ".")
        if ours:
            yield from _check_args(args, options, artefacts, f"{where}.args")
        for place, deployment in enumerate(application.get("deployments") or []):
            inside = f"{where}.deployments.{place}"
            if ours and deployment["name"] not in DEPLOYMENTS:
                hint = nearest(deployment["name"], [*DEPLOYMENTS])
                yield f"{inside}.name: no deployment {deployment['name']!r}; {hint}"
            yield from _check_deployment(deployment, options, inside)


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
    if not artefacts:
        return
    try:
        find_artefacts(given)
    except (StageError, ConfigError, FileNotFoundError) as error:
        yield f"{where}: {error}"
    try:
        require_keys([options.get("host", "0.0.0.0")], load_keys(given.api_keys_file), given.allow_open)
    except SecurityError as error:
        yield f"http_options.host: {error} (looked for {KEYS_VARIABLE} and {KEYS_FILE_VARIABLE} here)"


def _check_deployment(deployment: dict[str, Any], options: dict[str, Any], where: str) -> Iterator[str]:
    scaling = deployment.get("autoscaling_config") or {}
    most, target = deployment.get("max_ongoing_requests"), scaling.get("target_ongoing_requests")
    if most is not None and target is not None and target > most:
        yield (
            f"{where}.autoscaling_config.target_ongoing_requests: {target} is above max_ongoing_requests {most}, "
            "so it never scales up"
        )
    try:
        AutoscalingConfig.model_validate(scaling)  # the deployment's schema takes any mapping here
    except ValidationError as error:
        yield from (f"{where}.autoscaling_config: {detail['msg']}" for detail in error.errors())
    look_back = scaling.get("look_back_period_s", AutoscalingConfig.model_fields["look_back_period_s"].default)
    for name in ("upscale_delay_s", "downscale_delay_s"):
        if name in scaling and scaling[name] < look_back:
            yield (
                f"{where}.autoscaling_config.{name}: {scaling[name]} is below look_back_period_s {look_back}, "
                "so it oscillates"
            )
    timeout, grace = options.get("request_timeout_s"), deployment.get("graceful_shutdown_timeout_s")
    if timeout is not None and grace is not None and grace <= timeout:
        yield (
            f"{where}.graceful_shutdown_timeout_s: {grace} is not above http_options.request_timeout_s {timeout}, "
            "so an update cuts running requests off"
        )


def _unknown_keys(plain: Any, model: type[BaseModel], where: str) -> Iterator[str]:
    """Keys that no field of the schema has, at any depth."""
    if not isinstance(plain, dict):
        return
    fields = {info.alias or name: info.annotation for name, info in model.model_fields.items()}
    for key, value in plain.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in fields:
            yield f"{path}: unknown; {nearest(str(key), [*fields])}"
            continue
        inner = next(_models(fields[key]), None)
        if inner is None:
            continue
        for number, entry in enumerate(value if isinstance(value, list) else [value]):
            yield from _unknown_keys(entry, inner, f"{path}.{number}" if isinstance(value, list) else path)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Pydantic models in an annotation such as ``Optional[Union[dict, AutoscalingConfig]]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _dotted(location: tuple[Any, ...]) -> str:
    return ".".join(map(str, location))
