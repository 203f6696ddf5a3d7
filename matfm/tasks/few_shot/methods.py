"""What answers an episode: few-shot methods, and the baselines that they are judged against."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from matfm.chem.units import Property
from matfm.errors import MatfmError
from matfm.models.prototypes import PrototypeHead
from matfm.tasks.encoding import RowEncoder
from matfm.tasks.examples import Examples
from matfm.tasks.few_shot.classical_features import Features, similarity
from matfm.tasks.few_shot.features import EMBEDDING
from matfm.tasks.few_shot.scorers import KernelScorer, PrototypeScorer
from matfm.tasks.fit_config import FitConfig
from matfm.tasks.predictions import predict_members
from matfm.tasks.predictor import train_predictor
from matfm.tasks.targets import Targets, with_heads

# S support examples, Q queries, C classes

TREES, NEIGHBOURS, FINETUNING_EPOCHS = 100, 5, 30.0


@dataclass(frozen=True)
class FewShotProblem:
    """An episode as a method sees it."""

    support: Features
    labels_S: np.ndarray
    query: Features
    classes: int
    """0 in regression."""
    support_inputs: list[str]
    query_inputs: list[str]
    seed: int
    encoder: RowEncoder
    backbone: str
    """Of the fine-tuning: the encoder before any training over tasks."""
    device: torch.device
    head: PrototypeHead | None = None
    """Trained over tasks, if it was."""
    refinements: int | None = None

    @property
    def regression(self) -> bool:
        """Whether labels are numbers."""
        return self.classes == 0

    def classical(self) -> tuple[Features, Features]:
        """Classical features of support and queries. Raises MatfmError if there are none."""
        names = [block.name for block in self.support.blocks if block.name != EMBEDDING]
        if not names:
            raise MatfmError("the baselines need classical features; set classical to auto")
        return self.support.only(names), self.query.only(names)


Method = Callable[[FewShotProblem], np.ndarray]
"""Scores of the queries for each class (Q, C), or predicted numbers (Q, 1)."""


def prototypes(problem: FewShotProblem) -> np.ndarray:
    """A prototypical network: on the vectors it was trained for, else on embedding and classical features."""
    trained = problem.head is not None
    support, query = (part.only([EMBEDDING]) if trained else part for part in (problem.support, problem.query))
    scorer = PrototypeScorer(blocks=support.blocks, head=problem.head, refinements=problem.refinements)
    return scorer.fit(support.vectors_RW, problem.labels_S).class_scores(query.vectors_RW)


def kernel(problem: FewShotProblem) -> np.ndarray:
    """A Gaussian process on embedding and classical features together."""
    return _gaussian_process(problem, problem.support, problem.query)


def embedding_kernel(problem: FewShotProblem) -> np.ndarray:
    """A Gaussian process on the embedding alone."""
    return _gaussian_process(problem, problem.support.only([EMBEDDING]), problem.query.only([EMBEDDING]))


def classical_kernel(problem: FewShotProblem) -> np.ndarray:
    """A Gaussian process on the classical features alone: of ECFP counts, with the Tanimoto kernel."""
    return _gaussian_process(problem, *problem.classical())


def random_forest(problem: FewShotProblem) -> np.ndarray:
    """A random forest of 100 trees on the classical features."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    forest = RandomForestRegressor if problem.regression else RandomForestClassifier
    return _fitted(forest(TREES, random_state=problem.seed, n_jobs=1), problem, *problem.classical())


def logistic_regression(problem: FewShotProblem) -> np.ndarray:
    """Logistic (or ridge) regression on the classical features."""
    return _linear(problem, *problem.classical())


def nearest_neighbours(problem: FewShotProblem) -> np.ndarray:
    """The mean label of the (at most 5) nearest examples by the classical features, weighed by similarity."""
    support, query = problem.classical()
    similarity_QS = similarity(query, support)
    values_SC = (
        problem.labels_S[:, None] if problem.regression else np.eye(problem.classes)[problem.labels_S.astype(int)]
    )
    count = min(NEIGHBOURS, len(values_SC))
    nearest_QN = np.argsort(-similarity_QS, axis=1, kind="stable")[:, :count]
    weights_QN = np.take_along_axis(similarity_QS, nearest_QN, axis=1) + 1e-9
    scores: np.ndarray = (weights_QN[..., None] * values_SC[nearest_QN]).sum(axis=1)
    return scores / weights_QN.sum(axis=1, keepdims=True)


def linear_probe(problem: FewShotProblem) -> np.ndarray:
    """Logistic (or ridge) regression on the embedding."""
    return _linear(problem, problem.support.only([EMBEDDING]), problem.query.only([EMBEDDING]))


def finetuning(problem: FewShotProblem) -> np.ndarray:
    """The whole encoder with a fresh head, trained on the support for 30 epochs as `matfm finetune` does."""
    task = "regression" if problem.regression else "classification"
    config = FitConfig(backbone=problem.backbone, task=task, epochs=FINETUNING_EPOCHS)
    names = None if problem.regression else (tuple(str(number) for number in range(problem.classes)),)
    train, query = (Examples(problem.encoder(part).tokens) for part in (problem.support_inputs, problem.query_inputs))
    train.tokens.targets_RK = problem.labels_S[:, None].astype(np.float32)
    targets = with_heads(Targets((Property("label", ""),), names), config, train)
    with tempfile.TemporaryDirectory() as folder:
        model, _ = train_predictor(
            config, targets, problem.encoder, train, None, Path(folder), problem.seed, problem.device, {}
        )
    return predict_members([model], query, problem.device).value


METHODS: dict[str, Method] = {
    "prototypes": prototypes,
    "kernel": kernel,
    "embedding-kernel": embedding_kernel,
    "gp": classical_kernel,
    "rf": random_forest,
    "lr": logistic_regression,
    "knn": nearest_neighbours,
    "linear-probe": linear_probe,
    "finetune": finetuning,
}
BASELINES = ("rf", "lr", "knn", "gp", "linear-probe", "finetune")


def _gaussian_process(problem: FewShotProblem, support: Features, query: Features) -> np.ndarray:
    scorer = KernelScorer(support.blocks, regression=problem.regression).fit(support.vectors_RW, problem.labels_S)
    return scorer.predict(query.vectors_RW)[0] if problem.regression else scorer.class_scores(query.vectors_RW)


def _linear(problem: FewShotProblem, support: Features, query: Features) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    last = Ridge() if problem.regression else LogisticRegression(max_iter=2000)
    scaled = all(block.kernel == "rbf" for block in support.blocks)
    return _fitted(make_pipeline(StandardScaler(), last) if scaled else last, problem, support, query)


def _fitted(model: Any, problem: FewShotProblem, support: Features, query: Features) -> np.ndarray:
    model.fit(support.vectors_RW, problem.labels_S)
    predict = model.predict if problem.regression else model.predict_proba
    return np.asarray(predict(query.vectors_RW)).reshape(len(query.vectors_RW), -1)
