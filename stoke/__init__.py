"""The core of stoke: what a job is and what happens to it. Knows no engine and no screen."""
