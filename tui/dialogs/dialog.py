"""A screen over another one, which stays visible behind it, dimmed and still."""

from __future__ import annotations

from textual.screen import ScreenResultType

from tui.textual_patches.cheap_resume import CheapResumeScreen
from tui.textual_patches.still_background import StillBackgroundScreen


class Dialog(StillBackgroundScreen[ScreenResultType], CheapResumeScreen[ScreenResultType]):
    pass
