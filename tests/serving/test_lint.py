import warnings
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

from ranker.serving.lint import DEPLOYMENTS, check, read_serve_config

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
        autoscaling_config: {target_ongoing_requests: 2, upscale_delay_s: 15, look_back_period_s: 12}
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
        ("upscale_delay_s: 15", "upscale_delay_s: 5", "5 is below look_back_period_s 12"),
        ("{target", "{min_replicas: 3, target", "max_replicas (1) must be greater"),
        ("timeout_s: 40", "timeout_s: 20", "20 is not above http_options.request_timeout_s 30"),
        ("request_timeout_s: 30", "request_timeout_s: 20", "20 is not above args.deadline_s 25"),
        ("experiment:", "experimnt:", "args.experimnt: Extra inputs are not permitted; did you mean 'experiment'"),
        ("name: Reranker", "name: Rerank", "no deployment 'Rerank'; did you mean 'Reranker'"),
        ("import_path", "importpath", "importpath: unknown; did you mean 'import_path'"),
        ("http_options:", "http_option:", "http_option: unknown; did you mean 'http_options'"),
        ("max_ongoing_requests: 8", "max_ongoing_requests: many", "Input should be a valid integer"),
    ],
)  # fmt: skip
def test_what_ray_accepts_silently_is_found(tmp_path: Path, old: str, new: str, said: str):
    found = problems(tmp_path, old, new)
    assert any(said in problem for problem in found), found


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
