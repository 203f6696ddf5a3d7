"""Learners on fixed features: features of training rows and their labels in, predictions of test rows out.

Of a classification (`classes`) the labels are 0 and 1, and predictions are probabilities of 1.
"""

from __future__ import annotations

import numpy as np

from matfm.core.kernel_ridge import squared_distances
from matfm.core.standardise import Standardiser

# R training rows, T test rows, D features

TREES = 500
RIDGES = tuple(np.geomspace(1e-2, 1e6, 17))
LOGISTIC_COSTS = tuple(np.geomspace(1e-4, 1e1, 6))
SVM_COSTS = (3.0, 10.0, 30.0)
SVM_WIDTHS = (0.3, 1.0, 3.0)
"""In units of one over the mean squared distance."""
_FOLDS = 5


def constant(train_R: np.ndarray, rows: int, classes: bool) -> np.ndarray:
    """The mean of the training labels, or the class that most of them have."""
    mean = float(train_R.mean())
    return np.full(rows, float(mean > 0.5) if classes else mean)


def random_forest(
    train_RD: np.ndarray, train_R: np.ndarray, test_TD: np.ndarray, classes: bool, seed: int = 0
) -> np.ndarray:
    """500 trees; a third of the features at each split for regression, their square root for classification."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    if classes:
        forest = RandomForestClassifier(TREES, n_jobs=1, random_state=seed).fit(train_RD, train_R)
        return forest.predict_proba(test_TD)[:, 1]
    forest = RandomForestRegressor(TREES, max_features=1 / 3, n_jobs=1, random_state=seed)
    return forest.fit(train_RD, train_R).predict(test_TD)


def ridge(train_RD: np.ndarray, train_R: np.ndarray, test_TD: np.ndarray) -> np.ndarray:
    """Ridge regression on standardised features; the penalty has the smallest leave-one-out error."""
    from sklearn.linear_model import RidgeCV

    train, test = standardised(train_RD, test_TD)
    return RidgeCV(RIDGES).fit(train, train_R).predict(test)


def logistic(train_RD: np.ndarray, train_R: np.ndarray, test_TD: np.ndarray) -> np.ndarray:
    """Logistic regression on standardised features; the penalty by five-fold cross-validation on the training rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    train, test = standardised(train_RD, test_TD)
    search = GridSearchCV(
        LogisticRegression(max_iter=2000), {"C": LOGISTIC_COSTS}, cv=_FOLDS, n_jobs=1, scoring="neg_log_loss"
    )
    return search.fit(train, train_R).predict_proba(test)[:, 1]


def support_vectors(
    train_RD: np.ndarray, train_R: np.ndarray, test_TD: np.ndarray, scale: bool, seed: int = 0
) -> np.ndarray:
    """Support-vector regression, RBF kernel; cost and width by five-fold cross-validation on the training rows.

    Args:
        train_RD: features.
        train_R: labels; they are standardised.
        test_TD: features of the test rows.
        scale: whether features are standardised (bits are left as they are).
        seed: of the folds.
    """
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.svm import SVR

    train, test = standardised(train_RD, test_TD) if scale else (train_RD, test_TD)
    squares_RR, squares_TR = squared_distances(train, train), squared_distances(test, train)
    mean, spread = train_R.mean(), train_R.std() or 1.0
    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    best = None
    for width in SVM_WIDTHS:
        gamma = width / squares_RR.mean()
        search = GridSearchCV(
            SVR(kernel="precomputed", cache_size=1000), {"C": SVM_COSTS}, cv=folds, n_jobs=1,
            scoring="neg_mean_squared_error",
        ).fit(np.exp(-gamma * squares_RR), (train_R - mean) / spread)  # fmt: skip
        if best is None or search.best_score_ > best[0].best_score_:
            best = search, gamma
    assert best is not None
    search, gamma = best
    return search.predict(np.exp(-gamma * squares_TR)) * spread + mean


def standardised(train_RD: np.ndarray, test_TD: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both on the scale of the training rows; constant features are left out."""
    standardise = Standardiser.fit(train_RD)
    return standardise(train_RD), standardise(test_TD)
