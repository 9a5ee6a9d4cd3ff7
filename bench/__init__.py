"""Benchmarks: each module measures one claim and prints it as a ratio of one run.

python -m bench             all of them
python -m bench startup     one
"""
