"""What a deployment of a Serve config says against itself, or against the timeouts around it."""

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig

from ranker.registry import nearest
from ranker.serving.artefacts import RerankerSettings, RetrieverSettings
from ranker.serving.autoscaling import TokenPolicy
from ranker.serving.errors import RETRY_AFTER_S

# What the code says where a config does not (deployments.py); Ray's own numbers for deployments that are not ours.
MAX_ONGOING = {"Gateway": 1000, "Retriever": 32, "Reranker": 1000}
RAYS_MAX_ONGOING = 5
GRACE_S, RAYS_GRACE_S = 40.0, 20.0
QUEUED = 1000
RAYS_CHECK_PERIOD_S = 10.0
RAYS_CHECK_TIMEOUT_S = 30.0
BACKPRESSURE = {"status_code": 429, "retry_after_s": RETRY_AFTER_S}
# What a change without a restart may say.
SETTINGS: dict[str, type[BaseModel]] = {"Reranker": RerankerSettings, "Retriever": RetrieverSettings}
POLICY = f"{TokenPolicy.__module__}:{TokenPolicy.__name__}"


def contradictions(deployment: dict[str, Any], http: dict[str, Any], ours: bool) -> Iterator[str]:
    """Each with the field that it is about, relative to the deployment.

    Args:
        http: the file's ``http_options``. ours: whether the application is this project's.
    """
    scaling = deployment.get("autoscaling_config")
    if isinstance(scaling, dict):
        problems = [*_invalid(scaling), *_policy(scaling)]
        yield from problems
        if not problems:
            yield from _scaling(scaling, deployment, ours)
    yield from _timeouts(deployment, http, GRACE_S if ours else RAYS_GRACE_S)
    if ours:
        yield from _queues(deployment)
        yield from _settings(deployment)


def _invalid(scaling: dict[str, Any]) -> Iterator[str]:
    try:
        # The deployment's own schema takes any mapping here. The policy is looked at apart: Ray imports it.
        AutoscalingConfig.model_validate({key: value for key, value in scaling.items() if key != "policy"})
    except ValidationError as error:
        for detail in error.errors():
            name = ".".join(map(str, detail["loc"]))
            yield f"autoscaling_config{'.' if name else ''}{name}: {detail['msg']}"


def _policy(scaling: dict[str, Any]) -> Iterator[str]:
    policy = scaling.get("policy") or {}
    path, arguments = str(policy.get("policy_function", "")), policy.get("policy_kwargs") or {}
    if not path:
        return
    module, _, name = path.replace(":", ".").rpartition(".")
    if path.replace(":", ".") == POLICY.replace(":", "."):
        try:
            TokenPolicy(**arguments)
        except (TypeError, ValueError) as error:
            yield f"autoscaling_config.policy.policy_kwargs: {error}"
    elif module.startswith("ranker."):
        yield f"autoscaling_config.policy.policy_function: no policy {path!r}; this project has {POLICY}"
    elif not module or not name.isidentifier():
        yield f"autoscaling_config.policy.policy_function: {path!r} is no import path such as {POLICY}"


def _scaling(scaling: dict[str, Any], deployment: dict[str, Any], ours: bool) -> Iterator[str]:
    default = MAX_ONGOING.get(deployment["name"], RAYS_MAX_ONGOING) if ours else RAYS_MAX_ONGOING
    most, target = deployment.get("max_ongoing_requests", default), scaling.get("target_ongoing_requests")
    if target is not None and target > most:
        said = "" if "max_ongoing_requests" in deployment else " (its default)"
        yield (
            f"autoscaling_config.target_ongoing_requests: {target} is above max_ongoing_requests {most}{said}, "
            "so it never scales up"
        )
    config = AutoscalingConfig.model_validate({key: value for key, value in scaling.items() if key != "policy"})
    if config.max_replicas == config.min_replicas:
        return  # nothing to oscillate
    for name in ("upscale_delay_s", "downscale_delay_s"):
        if getattr(config, name) < config.look_back_period_s:
            yield (
                f"autoscaling_config.{name}: {getattr(config, name):g} is below look_back_period_s "
                f"{config.look_back_period_s:g}, so it oscillates"
            )
    if config.downscale_delay_s < config.upscale_delay_s:
        yield (
            f"autoscaling_config.downscale_delay_s: {config.downscale_delay_s:g} is below upscale_delay_s "
            f"{config.upscale_delay_s:g}, so a pause in the load costs a replica that is missed right after"
        )


def _timeouts(deployment: dict[str, Any], http: dict[str, Any], default_grace: float) -> Iterator[str]:
    timeout, grace = http.get("request_timeout_s"), deployment.get("graceful_shutdown_timeout_s", default_grace)
    if timeout is not None and grace <= timeout:
        said = "" if "graceful_shutdown_timeout_s" in deployment else " (its default)"
        yield (
            f"graceful_shutdown_timeout_s: {grace:g}{said} is not above http_options.request_timeout_s {timeout:g}, "
            "so an update cuts running requests off"
        )
    period = deployment.get("health_check_period_s", RAYS_CHECK_PERIOD_S)
    limit = deployment.get("health_check_timeout_s", RAYS_CHECK_TIMEOUT_S)
    if limit < period:
        yield f"health_check_timeout_s: {limit:g} is below health_check_period_s {period:g}"


def _settings(deployment: dict[str, Any]) -> Iterator[str]:
    settings, given = SETTINGS.get(deployment["name"]), deployment.get("user_config")
    if given is None:
        return
    if settings is None:
        yield f"user_config: {deployment['name']} takes none"
        return
    try:
        settings.model_validate(given)
    except ValidationError as error:
        for detail in error.errors():
            name = ".".join(map(str, detail["loc"]))
            hint = f"; {nearest(name, [*settings.model_fields])}" if detail["type"] == "extra_forbidden" else ""
            yield f"user_config{'.' if name else ''}{name}: {detail['msg']}{hint}"


def _queues(deployment: dict[str, Any]) -> Iterator[str]:
    if deployment.get("max_queued_requests", QUEUED) == -1:
        yield "max_queued_requests: -1 is a queue without an end; requests wait in it until all of them are too late"
    back = deployment.get("backpressure_config", BACKPRESSURE) or {}
    if deployment["name"] == "Gateway" and back.get("status_code", 503) != 429:
        yield (
            "backpressure_config.status_code: 503 for a full queue makes clients repeat at once; say 429 and "
            "retry_after_s"
        )
