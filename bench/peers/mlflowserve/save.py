"""`save.py MODEL.txt FOLDER`: a LightGBM model as MLflow logs it."""

import sys

import lightgbm
import mlflow.lightgbm

mlflow.lightgbm.save_model(lightgbm.Booster(model_file=sys.argv[1]), sys.argv[2])
