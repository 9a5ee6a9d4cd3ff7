"""A client of the SDK, connected to the installed program as coding agents connect to it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from stoke.client.session import Session
from stoke.history.job import JobState
from tests.terminals import PROGRAM


@dataclass
class Agent:
    client: Client

    async def text(self, tool: str, **arguments: Any) -> tuple[str, bool]:
        """The text of an answer, and whether it is an error."""
        result = await self.client.call_tool(tool, arguments)
        (content,) = result.content
        assert isinstance(content, TextContent)
        return content.text, bool(result.is_error)

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        text, failed = await self.text(tool, **arguments)
        assert not failed, text
        answer = json.loads(text)
        assert isinstance(answer, dict)
        return answer

    async def refused(self, tool: str, **arguments: Any) -> tuple[str, str | None]:
        """The error of a call, and its hint."""
        text, failed = await self.text(tool, **arguments)
        assert failed, text
        what, _, hint = text.partition("\nhint: ")
        return what, hint or None


Connect = Callable[..., AbstractAsyncContextManager[Agent]]


@pytest.fixture
def connect(own_home: Path) -> Connect:
    """Connects to `stoke mcp` with more words, started in the home of the test."""

    @asynccontextmanager
    async def connected(*words: str, mode: str = "auto") -> AsyncIterator[Agent]:
        server = StdioServerParameters(
            command=PROGRAM, args=["mcp", *words], env={**os.environ}, cwd=own_home
        )
        async with Client(server, mode=mode) as client:
            yield Agent(client)

    return connected


@pytest.fixture(autouse=True)
def no_job_left(own_home: Path) -> Iterator[None]:
    yield
    with Session() as session:
        for job in session.history.list(unfinished=True):
            session.job(job.id).stop(0)


def states() -> list[JobState]:
    """The states of all jobs, as the history has them."""
    with Session() as session:
        return [job.state for job in session.history.list()]
