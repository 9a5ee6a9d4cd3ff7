"""Run jobs from Python. Programs import the names from `stoke`. No server is needed."""
