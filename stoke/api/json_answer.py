"""JSON answers in ASCII, as the commands print JSON."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse


class JsonAnswer(JSONResponse):
    def render(self, content: Any) -> bytes:
        # Names of results may hold bytes that are not UTF-8, which only an escape can stand for.
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()
