"""Limits for reading a volume: jobs write to it, and what exceeds these counts as damaged."""

from __future__ import annotations

import re

MAX_FILE = 32 * 1024**2  # bytes
MAX_REQUEST = 64  # bytes of a file in requests/
MAX_VALUES = 1_000_000  # lists, objects and their members in one JSON file
MAX_PACKAGES = 5000  # of one environment
MAX_PACKAGE_NAME = 500  # characters
MAX_TEXT = 32 * 1024**2  # characters of the names of all environments' packages together
MAX_NAMES = 200_000  # of one folder
MAX_ENVIRONMENTS = 20_000
MAX_REPORTED = 20_000  # packages in a result
MAX_INODES = 2_000_000  # files with several links whose inodes are remembered
MAX_LOCKS = 500  # held at the same time; each takes a descriptor
MAX_BYTES = 1 << 60
MAX_PATH = 3000  # bytes; deeper folders are walked by descriptors, as the system takes 4096 bytes
NAMES_AT_ONCE = 500  # arguments of one command
MAX_POINTER_DEPTH = 8  # folders below a package's entry in uv's cache; uv uses fewer
ENVIRONMENT_KEY = re.compile(r"[0-9a-f]{32}")
REQUEST_HASH = re.compile(r"[0-9a-f]{64}")
SYSTEM_LOCK_NAME = re.compile(r"([0-9a-f]{32}|gc|init)\.lock")
STORE_NAME = re.compile(r"[0-9a-z]{32}-[^/]+")
PACKAGE_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
