import re
import shutil
import warnings
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from ranker.serving.deployment_rules import contradictions
from ranker.serving.lint import DEPLOYMENTS, check, read_serve_config, remarks

CONFIGS = Path(__file__).parents[2] / "serve_configs"
SHIPPED = sorted(CONFIGS.glob("*.yaml"))
GOOD = """
http_options: {host: 127.0.0.1, request_timeout_s: 30}
applications:
  - name: ranker
    import_path: ranker.serving.app:build
    args: {experiment: pets.yaml}
    deployments:
      - name: Reranker
        max_ongoing_requests: 8
        graceful_shutdown_timeout_s: 40
        autoscaling_config: {target_ongoing_requests: 2, upscale_delay_s: 15, look_back_period_s: 12}  # of one replica
"""


def test_three_files_ship():
    assert [file.name for file in SHIPPED] == ["kuberay.yaml", "local.yaml", "production.yaml"]


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_files_are_rays_own_schema(file: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Ray warns of what its next release refuses
        config = ServeDeploySchema.model_validate(read_serve_config(file))
    [application] = config.applications
    assert application.deployment_names == list(DEPLOYMENTS)
    assert all(deployment.is_autoscaling_configured() for deployment in application.deployments)
    assert check(file, artefacts=False) == []


def test_local_is_closed_and_names_files_that_exist():
    config = read_serve_config(CONFIGS / "local.yaml")
    assert config["http_options"]["host"] == "127.0.0.1"
    assert (CONFIGS.parent / config["applications"][0]["args"]["experiment"]).is_file()


def test_kuberay_serves_what_production_serves():
    production, kuberay = (read_serve_config(CONFIGS / f"{name}.yaml") for name in ("production", "kuberay"))
    assert kuberay == production


def test_on_kubernetes_every_pod_may_write_the_log_and_nothing_else(tmp_path: Path):
    spec = yaml.safe_load((CONFIGS / "kuberay.yaml").read_text())["spec"]["rayClusterConfig"]
    [application] = read_serve_config(CONFIGS / "kuberay.yaml")["applications"]
    place, config = application["args"]["documents"], yaml.safe_load((CONFIGS.parent / "cluster.yaml").read_text())
    assert application["args"].get("writable", True)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        [container], volumes = pod["containers"], {volume["name"]: volume for volume in pod["volumes"]}
        writable = [mount for mount in container["volumeMounts"] if not mount.get("readOnly")]
        assert [mount["mountPath"] for mount in writable] == [place]
        assert not volumes[writable[0]["name"]]["persistentVolumeClaim"].get("readOnly")
        asked = {entry["name"]: entry.get("value") for entry in container["env"]}
        # A node that falls silent is noticed long before the requests it has are too late.
        seconds = (int(asked["RAY_health_check_period_ms"]) + int(asked["RAY_health_check_timeout_ms"])) / 1000
        assert seconds * int(asked["RAY_health_check_failure_threshold"]) < application["args"]["deadline_s"] / 2
    [start] = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert all(f"{name}={value}" in start for name, value in asked.items() if name.startswith("RAY_health"))
    assert spec["authOptions"] == {"mode": "token", "secretName": "ray-auth-token"}


def test_a_retriever_without_retrieval_is_found(tmp_path: Path):
    text = GOOD.replace("name: Reranker", "name: Retriever").replace("{experiment", "{retrieval: false, experiment")
    (tmp_path / "serve.yaml").write_text(text)
    [problem] = check(tmp_path / "serve.yaml", artefacts=False)
    assert "there is no Retriever" in problem


def test_the_policy_that_ships_is_the_one_that_the_lint_knows():
    [application] = read_serve_config(CONFIGS / "production.yaml")["applications"]
    policies = [deployment["autoscaling_config"].get("policy") for deployment in application["deployments"]]
    assert [policy["policy_function"] for policy in policies if policy] == ["ranker.serving.autoscaling:TokenPolicy"]


def test_tls_files_are_looked_for_on_this_machine(tmp_path: Path, tiny_reranker: str):
    plain = yaml.safe_load(GOOD)
    plain["http_options"].update(ssl_certfile=str(tmp_path / "a.crt"), ssl_keyfile=str(tmp_path / "a.key"))
    plain["applications"][0]["args"] = {"reranker": tiny_reranker, "retrieval": False}
    (tmp_path / "a.crt").touch()
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(plain))
    [problem] = check(tmp_path / "serve.yaml")
    assert "a.key does not exist" in problem


def problems(tmp_path: Path, old: str, new: str) -> list[str]:
    assert old in GOOD
    file = tmp_path / "serve.yaml"
    file.write_text(GOOD.replace(old, new))
    return [problem.removeprefix(f"{file}: ") for problem in check(file, artefacts=False)]


def test_a_sound_file_has_no_problems(tmp_path: Path):
    assert problems(tmp_path, "pets", "pets") == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_ongoing_requests", "max_ongoing_request", "unknown; did you mean 'max_ongoing_requests'"),
        ("name: ranker", "routeprefix: /", "applications.0.routeprefix: unknown; did you mean 'route_prefix'"),
        ("{target", "{max_ongoing_requests: 8, target", "autoscaling_config.max_ongoing_requests: unknown"),
        ("target_ongoing_requests: 2", "target_ongoing_requests: 9", "9 is above max_ongoing_requests 8"),
        ("upscale_delay_s: 15", "max_replicas: 2, upscale_delay_s: 5", "5 is below look_back_period_s 12"),
        ("{target", "{min_replicas: 3, target", "max_replicas (1) must be greater"),
        ("timeout_s: 40", "timeout_s: 20", "20 is not above http_options.request_timeout_s 30"),
        ("request_timeout_s: 30", "request_timeout_s: 20", "20 is not above args.deadline_s 25"),
        ("experiment:", "experimnt:", "args.experimnt: Extra inputs are not permitted; did you mean 'experiment'"),
        ("name: Reranker", "name: Rerank", "no deployment 'Rerank'; did you mean 'Reranker'"),
        ("import_path", "importpath", "importpath: unknown; did you mean 'import_path'"),
        ("http_options:", "http_option:", "http_option: unknown; did you mean 'http_options'"),
        ("max_ongoing_requests: 8", "max_ongoing_requests: many", "Input should be a valid integer"),
        # In the wrong place, and where it belongs.
        ("name: Reranker", "name: Reranker\n        max_replicas: 4",
         "max_replicas: unknown here, it belongs in applications[].deployments[].autoscaling_config"),
        ("{target", "{max_queued_requests: 8, target", "it belongs in applications[].deployments[]"),
        ("name: ranker", "deadline_s: 5", "deadline_s: unknown here, it belongs in applications[].args"),
        ("http_options:", "request_timeout_s: 30\nhttp_options:", "request_timeout_s: unknown here, it belongs in h"),
        ("name: Reranker", "name: Reranker\n        num_gpus: 1",
         "it belongs in applications[].deployments[].ray_actor_options"),
        ("{target", "{policy: {policy_functio: x}, target", "policy.policy_functio: unknown"),
        # What the defaults make of it.
        ("        max_ongoing_requests: 8\n", "", ""),
        ("target_ongoing_requests: 2", "target_ongoing_requests: 65, max_replicas: 2", "65 is above"),
        ("        graceful_shutdown_timeout_s: 40\n", "", ""),
        ("timeout_s: 40\n", "timeout_s: 25\n", "25 is not above http_options.request_timeout_s 30"),
        (", request_timeout_s: 30", "", "request_timeout_s: not set"),
        ("upscale_delay_s: 15", "upscale_delay_s: 15, max_replicas: 2, downscale_delay_s: 13", "13 is below upscale"),
        ("look_back_period_s: 12", "look_back_period_s: 16, max_replicas: 2", "upscale_delay_s: 15 is below"),
        ("max_ongoing_requests: 8", "health_check_timeout_s: 5", "5 is below health_check_period_s 10"),
        ("max_ongoing_requests: 8", "max_queued_requests: -1", "a queue without an end"),
        ("name: Reranker", "name: Gateway", ""),
        ("name: Reranker", "name: Gateway\n        backpressure_config: {status_code: 503}", "say 429"),
        ("args: {", "args: {retrieval: false, ", ""),
        ("name: Reranker", "name: Retriever\n      - name: Retriever", "'Retriever' stands here 2 times"),
        ("args: {experiment: pets.yaml}", "args: {overrides: {serve.scoring.batch_token: 9}}", "batch_tokens"),
        ("host: 127.0.0.1", "host: 127.0.0.1, ssl_certfile: a.crt", "must be provided together"),
        # What is changed without a restart.
        ("name: Reranker", "name: Reranker\n        user_config: {model: {a: b}}", "user_config.model: Extra inputs"),
        ("name: Reranker", "name: Reranker\n        user_config: {models: {}}", "user_config.models: Dictionary"),
        ("name: Reranker", "name: Gateway\n        user_config: {models: {}}", "Gateway takes none"),
        # Policies, which Ray imports while it reads the file.
        ("{target", "{policy: {policy_function: 'ranker.serving.autoscaling:TokenPolicy', "
         "policy_kwargs: {utilization: 1}}, target", "unexpected keyword argument 'utilization'"),
        ("{target", "{policy: {policy_function: 'ranker.serving.autoscaling:TokenPolicy', "
         "policy_kwargs: {drain_s: 0}}, target", "drain_s 0: must be above 0"),
        ("{target", "{policy: {policy_function: 'ranker.serving:Nothing'}, target", "this project has"),
        ("{target", "{policy: {policy_function: nothing}, target", "is no import path"),
    ],
)  # fmt: skip
def test_what_ray_accepts_silently_is_found(tmp_path: Path, old: str, new: str, said: str):
    found = problems(tmp_path, old, new)
    assert any(said in problem for problem in found) if said else found == [], found


def test_of_another_application_rays_defaults_count(tmp_path: Path):
    text = GOOD.replace("ranker.serving.app:build", "other:build").replace(
        "        graceful_shutdown_timeout_s: 40\n", ""
    )
    (tmp_path / "serve.yaml").write_text(text)
    assert ["20 (its default) is not above" in problem for problem in check(tmp_path / "serve.yaml")] == [True]


def test_without_a_file_the_deployments_keep_the_rules_themselves():
    from ray.serve.deployment import deployment_to_schema

    from ranker.serving.deployments import Gateway, Reranker, Retriever

    for deployment in (Gateway, Retriever, Reranker):
        plain = deployment_to_schema(deployment).model_dump(exclude_unset=True, exclude={"user_config"})
        assert plain["max_queued_requests"] > 0 and plain["graceful_shutdown_timeout_s"] == 40
        assert [*contradictions(plain, {"request_timeout_s": 30}, ours=True)] == []


def written(folder: Path, args: dict, *deployments: dict) -> Path:
    plain = yaml.safe_load(GOOD)
    [application] = plain["applications"]
    first = application["deployments"][0]
    application |= {"args": args, "deployments": [first | deployment for deployment in deployments]}
    (folder / "serve.yaml").write_text(yaml.safe_dump(plain))
    return folder / "serve.yaml"


def test_folders_of_user_config_are_looked_for_like_those_of_args(tmp_path: Path, experiment: Path, tiny_reranker: str):
    runs, pickled = experiment.parent / "runs", tmp_path / "pickled"
    shutil.copytree(tiny_reranker, pickled)
    (pickled / "module").mkdir()
    (pickled / "module" / "pytorch_model.bin").touch()
    args = {"experiment": str(experiment), "documents": str(tmp_path / "documents")}
    models = {"good": tiny_reranker, "gone": str(tmp_path / "gone"), "pickled": str(pickled)}
    settings = {"index": str(runs / "index"), "corpus": str(tmp_path / "data")}
    file = written(tmp_path, args, {"user_config": {"models": models}}, {"name": "Retriever", "user_config": settings})
    gone, bad, corpus = check(file)
    assert "deployments.0.user_config.models.gone: " in gone and "no such model folder" in gone
    assert "user_config.models.pickled: " in bad and "as a pickle" in bad
    assert "deployments.1.user_config: " in corpus and "data: no finished stage" in corpus
    settings["corpus"] = str(runs / "data")
    file = written(tmp_path, args, {"name": "Retriever", "user_config": settings})
    assert check(file) == []


def test_it_is_said_where_user_config_outvotes_args(tmp_path: Path, tiny_reranker: str):
    args = {"reranker": "/mnt/old", "retrieval": False}
    file = written(tmp_path, args, {"user_config": {"models": {"pets": "/mnt/new"}}})
    [remark] = remarks(file)
    assert "deployments.0.user_config: Reranker serves /mnt/new, not /mnt/old of args" in remark
    assert (
        remarks(written(tmp_path, args, {"user_config": {"models": {"pets": "/mnt/old"}}}, {"name": "Gateway"})) == []
    )
    assert remarks(written(tmp_path, {"none": 1}, {})) == [] == remarks(tmp_path / "missing.yaml")


def test_a_log_that_cannot_be_written_and_a_file_without_a_key_are_found(tmp_path: Path, experiment: Path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("RANKER_API_KEYS", raising=False)
    args = {"experiment": str(experiment), "documents": str(tmp_path / "file"), "api_keys_file": str(tmp_path / "file")}
    log, keys = check(written(tmp_path, args, {}))
    assert "args.documents: " in log and "writable: false" in log and "every request would be refused" in keys
    assert "every request" in check(written(tmp_path, args | {"writable": False}, {}))[0]


@pytest.mark.parametrize("content", ["- a list", "a: [", "kind: RayService", "{}"])
def test_a_file_that_is_no_serve_config_is_one_line(tmp_path: Path, content: str):
    (tmp_path / "serve.yaml").write_text(content)
    [problem] = check(tmp_path / "serve.yaml")
    assert str(tmp_path / "serve.yaml") in problem
    assert len(check(tmp_path / "missing.yaml")) == 1


def test_missing_folders_and_an_open_port_are_found_on_this_machine(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RANKER_API_KEYS", raising=False)
    monkeypatch.delenv("RANKER_API_KEYS_FILE", raising=False)
    plain = yaml.safe_load(GOOD)
    plain["http_options"]["host"] = "0.0.0.0"
    plain["applications"][0]["args"] = {"overrides": {"output_dir": "runs/none"}}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(plain))
    folders, host = check(tmp_path / "serve.yaml")
    assert all(f"runs/none/{folder} does not exist" in folders for folder in ("model", "index", "data"))
    assert "no API key is set" in host


def test_what_the_page_shows_of_a_file_is_sound(tmp_path: Path):
    page = (CONFIGS.parent / "docs" / "serving.md").read_text()
    blocks = [yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)]
    plain = yaml.safe_load(GOOD)
    for block in blocks:
        plain["applications"][0]["deployments"][0]["autoscaling_config"] |= block.pop("autoscaling_config", {})
        plain |= {key: value for key, value in block.items() if key == "tracing_config"}
    assert plain["tracing_config"] and "policy" in str(plain["applications"])
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(plain))
    assert check(tmp_path / "serve.yaml", artefacts=False) == []
