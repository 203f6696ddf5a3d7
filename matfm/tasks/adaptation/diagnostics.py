"""How far apart the domains are: in the vectors of a model, and in the elements of their formulas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from matfm.chem.composition_tokenizer import CompositionTokenizer
from matfm.chem.elements import ATOMIC_NUMBER
from matfm.tasks.adaptation.rows import DomainRows

# R rows, D width, E elements

MOST_ROWS = 1000
"""Rows of each side that domains are compared on."""
FEWEST_ROWS = 10
FOLDS = 5
FEWEST_OF_ELEMENT = 3
"""Rows with an element below which no mean error is given."""
_REGULARISATION = 0.1


@dataclass(frozen=True)
class Separation:
    """What a linear classifier tells of two sides, each row judged by one that was fitted without it."""

    accuracy: float
    """Mean of the accuracies on both sides; 0.5 if they cannot be told apart."""
    odds_R: np.ndarray
    """Odds of each row being the second side's, as if there were as many rows of both."""

    @property
    def a_distance(self) -> float:
        """Proxy A-distance 2 (1 - 2 ε), from 0 to 2 (Ben-David et al., Mach. Learn. 79, 151 (2010)); never negative."""
        return max(0.0, 2 * (1 - 2 * (1 - self.accuracy)))


def separation(vectors_RD: np.ndarray, second_R: np.ndarray, seed: int) -> Separation | None:
    """Tell two sides apart by logistic regression with cross-validation; None for too few rows of one.

    Args:
        vectors_RD: of the rows of both sides.
        second_R: whether a row is the second side's.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if min(second_R.sum(), (~second_R).sum()) < FEWEST_ROWS:
        return None
    learner = make_pipeline(
        StandardScaler(), LogisticRegression(C=_REGULARISATION, class_weight="balanced", max_iter=2000)
    )
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    probability_R = cross_val_predict(
        learner, vectors_RD.astype(np.float64), second_R, cv=folds, method="predict_proba"
    )
    probability_R = probability_R[:, 1].clip(1e-6, 1 - 1e-6)
    right_R = (probability_R > 0.5) == second_R
    accuracy = float((right_R[second_R].mean() + right_R[~second_R].mean()) / 2)
    return Separation(accuracy, probability_R / (1 - probability_R))


@dataclass(frozen=True)
class Sample:
    """Rows on which the domains are compared, of both sides; no test rows."""

    at: np.ndarray
    """Usable row of each."""
    target_R: np.ndarray
    """Whether it is the target's."""
    judged_R: np.ndarray
    """Whether it is a held-out source row, on which transfer is judged."""


def sample_rows(rows: DomainRows, seed: int) -> Sample:
    """All held-out source rows, training rows of the source up to the limit, and target rows but those of the test."""
    rng = np.random.default_rng(seed)
    held, train = rows.positions("source", "valid"), rows.positions("source", "train")
    of_target = np.flatnonzero(rows.target_U & (rows.labelled.parts != "test"))
    target = rng.permutation(of_target)[:MOST_ROWS]
    source = np.concatenate([held, rng.permutation(train)[: max(0, MOST_ROWS - len(held))]])
    at = np.concatenate([source, target])
    return Sample(at, np.arange(len(at)) >= len(source), np.arange(len(at)) < len(held))


def separation_record(found: Separation | None) -> dict[str, float] | None:
    """For the summary."""
    if found is None:
        return None
    return {"domain_accuracy": round(found.accuracy, 4), "proxy_a_distance": round(found.a_distance, 4)}


def element_prevalence(rows: DomainRows) -> dict[str, dict[str, float]] | None:
    """Element to the share of rows that have it, by side; None for inputs that are not formulas."""
    tokenizer = rows.labelled.encoder.tokenizer
    if not isinstance(tokenizer, CompositionTokenizer):
        return None
    shares: dict[str, dict[str, float]] = {}
    for side, chosen_U in (("source", ~rows.target_U), ("target", rows.target_U)):
        at = np.flatnonzero(chosen_U)
        # The scheme `fraction` has one token for each element of a formula.
        ids, counts = np.unique(rows.take(at).tokens.ids_N, return_counts=True)
        for symbol, count in zip(tokenizer.convert_ids_to_tokens(ids.tolist()), counts.tolist(), strict=True):
            if symbol in ATOMIC_NUMBER:
                shares.setdefault(symbol, {"source": 0.0, "target": 0.0})[side] = count / len(at)
    return dict(sorted(shares.items(), key=lambda item: ATOMIC_NUMBER[item[0]]))


def element_errors(rows: DomainRows, at: np.ndarray, error_R: np.ndarray) -> dict[str, float]:
    """Mean error of the given usable rows by element; of elements with few rows, nothing."""
    tokenizer, tokens = rows.labelled.encoder.tokenizer, rows.take(at).tokens
    if not isinstance(tokenizer, CompositionTokenizer):
        return {}
    error_N = np.repeat(error_R, tokens.lengths_R)
    means: dict[str, float] = {}
    for token in np.unique(tokens.ids_N).tolist():
        of_token = tokens.ids_N == token
        symbol = tokenizer.convert_ids_to_tokens(token)
        if symbol in ATOMIC_NUMBER and of_token.sum() >= FEWEST_OF_ELEMENT:
            means[symbol] = float(error_N[of_token].mean())
    return means


def diagnose(sample: Sample, vectors: dict[str, np.ndarray], domain_R: np.ndarray, seed: int) -> dict[str, Any]:
    """Model to its domain accuracy and proxy A-distance; of more than two domains, also the accuracy over all.

    Args:
        sample: the rows.
        vectors: model (backbone, control, adapted) to the vectors (R, D) of these rows.
        domain_R: number of each row's domain.
        seed: of the folds.
    """
    found: dict[str, Any] = {}
    for name, vectors_RD in vectors.items():
        record = separation_record(separation(vectors_RD, sample.target_R, seed))
        if record is not None and len(np.unique(domain_R)) > 2:
            record["all_domains_accuracy"] = _accuracy_over_domains(vectors_RD, domain_R, seed)
        found[name] = record
    return found


def _accuracy_over_domains(vectors_RD: np.ndarray, domain_R: np.ndarray, seed: int) -> float:
    """Mean recall of the domains that have enough rows, each told from the others in turn; NaN-free."""
    accuracies = [
        found.accuracy
        for domain in np.unique(domain_R).tolist()
        if (found := separation(vectors_RD, domain_R == domain, seed)) is not None
    ]
    return round(float(np.mean(accuracies)), 4) if accuracies else 0.5
