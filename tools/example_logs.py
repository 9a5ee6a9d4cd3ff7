"""Logs of the jobs in the example history."""

from __future__ import annotations

FITTED = b"""\
INFO read 48,211 rows from readings.parquet
INFO fold 1 of 5  rmse 3.21
INFO fold 2 of 5  rmse 3.02
INFO fold 3 of 5  rmse 3.11
INFO fold 4 of 5  rmse 2.98
INFO fold 5 of 5  rmse 3.04
INFO rmse 3.07, written to scores.csv
"""
TRAINING = b"".join(
    b"INFO step %4d  loss %.4f  lr 3e-4\n" % (20 * step, 2.3 / (1 + step / 9)) for step in range(60)
)


def _fit() -> tuple[bytes, bytes]:
    lines = [
        "13:42:24 INFO    reading readings.parquet",
        "13:42:25 DEBUG   48,211 rows, 14 columns",
        "13:42:25 WARNING 212 rows without a load, left out",
    ]
    for fold, rmse in enumerate((3.21, 3.02, 3.11, 2.98, 3.04, 3.17, 2.95), 1):
        at = f"13:42:{22 + 5 * fold:02}"
        lines.append(f"{at} INFO    fold {fold} of 8, rmse {rmse}")
        lines.append(f"{at} DEBUG   {120 * fold} trees, depth 8")
    lines.append("13:43:01 WARNING fold 8 has a new station")
    lines.append("13:43:04 ERROR   fold 8 has no reading before 04:00")
    errors = """\
Traceback (most recent call last):
  File "/stoke/work/project/fit/train.py", line 61, in <module>
    main(parse())
  File "/stoke/work/project/fit/train.py", line 48, in main
    scores = [score(fold) for fold in folds(points)]
  File "/stoke/work/project/fit/features.py", line 27, in add_lags
    raise ValueError(f"no reading before {at}")
ValueError: no reading before 04:00
"""
    return "".join(f"{line}\n" for line in lines).encode(), errors.encode()


FAILED_FIT = _fit()
