"""How well a world can be told at all from the first one, by classifiers that were trained on it, for `worlds`.

A check of an observation has never seen the world that it warns of. A classifier that has seen it, and all numbers that
the networks and the check read, says what a warning could reach at most.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.worlds_scores import LATER
from eorinfer.bank.rows import Rows

#: Parts of the realisations, each asked of a classifier that was trained on the others; share of false alarms.
FOLDS, LEVEL = 5, 0.01
#: Classifiers, of which the best counts.
CLASSIFIERS = {
    "logistic regression": lambda: make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
    ),
    "support vectors": lambda: make_pipeline(StandardScaler(), SVC(C=3.0, class_weight="balanced")),
    "boosted trees": lambda: HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.05, max_leaf_nodes=15, class_weight="balanced", random_state=1
    ),
}


def ceiling(rows: Rows, values: NDArray[np.float32], world: int) -> dict[str, Any]:
    """Tell another world from the first one by summaries (n, S), without and with theta.

    Returns
    -------
    dict
        By what is known and by classifier: the area under the curve, and the share of the world that is found where
        `LEVEL` of the first one is.
    """
    own = np.flatnonzero((rows.round != LATER) & ((rows.world == 0) | (rows.world == world)))
    with_theta = np.concatenate([values[own], rows.theta[own]], 1)
    inputs = {"observation": values[own], "observation and theta": with_theta}
    return {what: _by_classifier(x, rows.world[own] == world, rows.seed[own]) for what, x in inputs.items()}


def _by_classifier(x: NDArray[np.float32], is_other: NDArray[np.bool_], seed: NDArray[np.uint64]) -> dict[str, Any]:
    scores = {}
    for name, build in CLASSIFIERS.items():
        score = np.empty(len(x))
        for learned, asked in GroupKFold(FOLDS).split(x, is_other, seed):
            score[asked] = build().fit(x[learned], is_other[learned]).decision_function(x[asked])
        threshold = np.quantile(score[~is_other], 1 - LEVEL)
        scores[name] = {
            "area": float(roc_auc_score(is_other, score)),
            "found": float((score[is_other] > threshold).mean()),
        }
    return scores
