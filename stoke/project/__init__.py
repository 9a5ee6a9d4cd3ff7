"""Project snapshots: the files of the submitting machine that a job gets."""
