"""Everything that a user can set: one experiment file, one section a stage."""

from ranker.config.experiment import (
    STAGES,
    ConfigError,
    Experiment,
    Stage,
    known_paths,
    load_experiment,
    parse_overrides,
)
from ranker.config.retrieval import DataConfig, IndexConfig, MineConfig, TeacherConfig
from ranker.config.scoring import EvaluateConfig, ExportConfig, RayConfig, ScoringConfig, ServeConfig
from ranker.config.section import Precision, Section, local
from ranker.config.training import DeepSpeedConfig, LoraConfig, TrainConfig
from ranker.config.tuning import TuneConfig

__all__ = [
    "STAGES",
    "ConfigError",
    "DataConfig",
    "DeepSpeedConfig",
    "EvaluateConfig",
    "Experiment",
    "ExportConfig",
    "IndexConfig",
    "LoraConfig",
    "MineConfig",
    "Precision",
    "RayConfig",
    "ScoringConfig",
    "Section",
    "ServeConfig",
    "Stage",
    "TeacherConfig",
    "TrainConfig",
    "TuneConfig",
    "known_paths",
    "load_experiment",
    "local",
    "parse_overrides",
]
