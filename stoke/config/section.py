"""The base of all sections of the configuration."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    # The defaults need no validation, and building it takes 12 ms of a start. Not for models that
    # threads may validate first at the same time: pydantic's deferred build is not safe for that.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)
