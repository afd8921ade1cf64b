"""The model as BentoML's documentation writes a service; MODEL names the LightGBM text file."""

import os

import bentoml
import lightgbm
import numpy as np


@bentoml.service(workers=1)
class Trees:
    def __init__(self) -> None:
        self.model = lightgbm.Booster(model_file=os.environ["MODEL"])

    @bentoml.api
    def predict(self, features: np.ndarray) -> np.ndarray:
        return self.model.predict(features, num_threads=1)
