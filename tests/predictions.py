"""Predict the caches for a spec alone."""

from __future__ import annotations

from stoke.cache import prediction
from stoke.cache.keys import request_keys
from stoke.history.database import History
from stoke.history.job import Prediction
from stoke.request.spec import JobSpec


def predict(spec: JobSpec, backend: str, history: History) -> Prediction:
    return prediction.predict(spec, request_keys(spec), backend, history)
