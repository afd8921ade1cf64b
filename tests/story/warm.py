"""Imported by the victims' parent: what every victim would otherwise import, read and compile for itself."""

from pathlib import Path

import lightgbm
import numpy as np
import onnxruntime

import boucle.serve.explain
import boucle.serve.monitor
from boucle.product.project import load_project
from boucle.serve.evidence import Evidence

__all__ = ["boucle", "lightgbm", "onnxruntime"]

load_project(Path(__file__).parent / "scored_product", None, {"addresses.input": "nowhere"})
Evidence(0.1).add(np.zeros(1))  # the compiler is there now
