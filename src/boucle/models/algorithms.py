"""What can be trained, how its parameters are searched, and how it becomes ONNX.

Everything runs on one thread with a seed, so that the same rows give the same bytes.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from boucle.errors import BoucleError

__all__ = ["TREES", "fit", "predict", "space_of", "to_onnx", "trees"]

TREES = "trees.txt"
"""LightGBM's own file of a model, kept beside model.onnx: what explains its scores."""

_OPSET = {"": 18, "ai.onnx.ml": 3}
_LIGHTGBM = {"deterministic": True, "force_row_wise": True, "num_threads": 1, "verbosity": -1}

_SPACES: dict[str, dict[str, list[Any]]] = {
    "lightgbm": {
        "n_estimators": [50, 100, 200, 400],
        "learning_rate": [0.02, 0.05, 0.1, 0.2],
        "num_leaves": [7, 15, 31, 63],
        "min_child_samples": [10, 20, 50],
        "reg_lambda": [0.0, 1.0, 10.0],
    },
    "gradient_boosting": {
        "n_estimators": [50, 100, 200],
        "learning_rate": [0.03, 0.1, 0.2],
        "max_depth": [2, 3, 4],
        "min_samples_leaf": [1, 5, 20],
    },
    "random_forest": {
        "n_estimators": [50, 100, 200],
        "max_depth": [4, 8, 16],
        "min_samples_leaf": [1, 5, 20],
    },
    "logistic": {"C": [0.01, 0.1, 1.0, 10.0]},
    "ridge": {"alpha": [0.01, 0.1, 1.0, 10.0, 100.0]},
}


def space_of(algorithm: str) -> dict[str, list[Any]]:
    """The values a search chooses from when nobody says others."""
    return _SPACES[algorithm]


def fit(
    algorithm: str,
    task: str,
    parameters: Mapping[str, Any],
    inputs: NDArray[np.float32],
    truth: NDArray[np.float64],
    seed: int,
) -> Any:
    """A trained estimator; B627 when the algorithm does not accept its parameters or rows."""
    estimator = _estimator(algorithm, task, dict(parameters), seed)
    try:
        # LightGBM would rather copy a float32 matrix with names; a plain one is what will be scored.
        estimator.fit(inputs, truth)
    except (ValueError, TypeError) as error:
        fix = "correct parameters: or search.space: of the model"
        raise BoucleError("B627", f"{algorithm} cannot be trained so", why=str(error), fix=fix) from error
    return _rounded(estimator) if algorithm == "lightgbm" else estimator


def predict(model: Any, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
    """The probability of yes, or the number."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(inputs)[:, 1], dtype=np.float64)
    return np.asarray(model.predict(inputs), dtype=np.float64).reshape(len(inputs))


def to_onnx(model: Any, algorithm: str, task: str, width: int, output: str) -> bytes:
    """One float32 input (rows, width), one output (rows, 1) called `output`; the same model, the same bytes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    made = _converted(model, algorithm, width)
    graph = made.graph
    told = [one.name for one in graph.output]
    if task == "classification":
        graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "of_yes"))
        graph.node.append(helper.make_node("Gather", [told[-1], "of_yes"], [output], "take_yes", axis=1))
    else:
        graph.node.append(helper.make_node("Identity", [told[0]], [output], "take"))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [None, 1]))
    graph.name = "model"
    made.ir_version = 9
    onnx.checker.check_model(made)
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def _converted(model: Any, algorithm: str, width: int) -> Any:
    if algorithm == "lightgbm":
        from onnxmltools.convert import convert_lightgbm
        from onnxmltools.convert.common.data_types import FloatTensorType as Floats

        return convert_lightgbm(
            model.booster_ if hasattr(model, "booster_") else model,
            name="model",
            initial_types=[("input", Floats([None, width]))],
            target_opset=15,  # the newest that onnxmltools 1.16 writes
            zipmap=False,
        )
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    return convert_sklearn(
        model,
        name="model",
        initial_types=[("input", FloatTensorType([None, width]))],
        target_opset=_OPSET,
        options={id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None,
    )


def _estimator(algorithm: str, task: str, parameters: dict[str, Any], seed: int) -> Any:
    yes_or_no = task == "classification"
    try:
        if algorithm == "lightgbm":
            import lightgbm

            kind = lightgbm.LGBMClassifier if yes_or_no else lightgbm.LGBMRegressor
            return kind(**{**parameters, **_LIGHTGBM, "random_state": seed, "n_jobs": 1})
        if algorithm in {"gradient_boosting", "random_forest"}:
            from sklearn import ensemble

            kinds = {
                "gradient_boosting": (
                    ensemble.GradientBoostingClassifier,
                    ensemble.GradientBoostingRegressor,
                ),
                "random_forest": (ensemble.RandomForestClassifier, ensemble.RandomForestRegressor),
            }
            return kinds[algorithm][not yes_or_no](**{**parameters, "random_state": seed})
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        last = (
            LogisticRegression(**{"max_iter": 1000, **parameters, "random_state": seed})
            if yes_or_no
            else Ridge(**parameters)
        )
        return make_pipeline(StandardScaler(), last)
    except TypeError as error:
        fix = "correct parameters: or search.space: of the model"
        raise BoucleError("B627", f"{algorithm} has no such parameter", why=str(error), fix=fix) from error


class _Booster:
    """A LightGBM booster whose thresholds are float32, so that ONNX and it take the same branch everywhere."""

    def __init__(self, booster: Any, *, probability: bool) -> None:
        self.booster_ = booster
        if probability:
            self.predict_proba = self._both

    def predict(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        """The number, or the probability of yes."""
        return np.asarray(self.booster_.predict(inputs, num_threads=1), dtype=np.float64)

    def _both(self, inputs: NDArray[np.float32]) -> NDArray[np.float64]:
        yes = self.predict(inputs)
        return np.stack([1 - yes, yes], axis=1)


def _rounded(model: Any) -> Any:
    """Thresholds rounded down to float32: for a float32 x, `x <= t` says the same before and after.

    ONNX stores thresholds as float32; rounded to the *nearest*, a row that lies on one would take the other branch.
    """
    import lightgbm

    text = model.booster_.model_to_string()

    def down(found: re.Match[str]) -> str:
        return found[1] + " ".join(_floor(float(one)) for one in found[2].split())

    text = re.sub(r"(?m)^(threshold=)(.*)$", down, text)
    # The sizes of the trees' texts have changed; without them LightGBM reads tree after tree.
    text = re.sub(r"(?m)^tree_sizes=.*\n", "", text)
    booster = lightgbm.Booster(model_str=text)
    return _Booster(booster, probability=hasattr(model, "predict_proba"))


def _floor(threshold: float) -> str:
    near = np.float32(threshold)
    if float(near) > threshold:
        near = np.nextafter(near, np.float32(-np.inf))
    return repr(float(near))


def trees(estimator: Any, algorithm: str) -> dict[str, bytes]:
    """The file that explains the scores, where the algorithm has one."""
    if algorithm != "lightgbm":
        return {}
    return {TREES: str(estimator.booster_.model_to_string()).encode()}
