# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy", "pandas"]
# ///
"""A job that names its own packages: `stoke run examples/numpy_pi.py`."""

import numpy as np
import pandas as pd

points = np.random.default_rng(7).random((1_000_000, 2))
inside = (points**2).sum(axis=1) <= 1
frame = pd.DataFrame({"points": len(points), "inside": inside.sum()}, index=["count"])
print(frame.to_string())
print(f"pi is about {4 * inside.mean():.4f}")
