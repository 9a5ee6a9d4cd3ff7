"""Which failed pulls of an image may succeed later: `--retries` tries these again."""

from __future__ import annotations

import pytest

from backends.docker.image import _failed_pull
from stoke.backend.api import ImagePullError


@pytest.mark.parametrize(
    ("why", "is_temporary"),
    [
        ('Get "https://registry-1.docker.io/v2/": dial tcp: i/o timeout', True),
        ("toomanyrequests: You have reached your pull rate limit", True),
        ("received unexpected HTTP status: 503 Service Unavailable", True),
        ("unexpected EOF", True),
        ("manifest for team/image:1 not found: manifest unknown", False),
        ("pull access denied for nothing, repository does not exist", False),
        ("unauthorized: authentication required", False),
        ("no matching manifest for linux/arm64/v8 in the manifest list entries", False),
        ("invalid reference format", False),
    ],
)
def test_a_failed_pull(why: str, is_temporary: bool) -> None:
    error = _failed_pull(f"cannot pull the image team/image:1: {why}")
    assert isinstance(error, ImagePullError) is is_temporary
