"""The skill file: what a coding agent has to know to use stoke."""

from __future__ import annotations

from pathlib import Path


def skill_file() -> str:
    """Return the skill file: Markdown with front matter."""
    return Path(__file__).with_name("skill.md").read_text(encoding="utf-8")
