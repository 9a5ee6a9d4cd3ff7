"""The screens. They use the core, and reach backends through its registry only.

Textual reads these variables when it is imported, so they are set before any module here imports it.
Over SSH, and in a browser, a frame takes 13 KiB and more, and frames queue up in front of the effects
of keys: few frames and no animations keep a slow link responsive. Elsewhere the effect of a key waits
for the next frame or two, and an idle program draws nothing. Values that the user has set are kept.
"""

import os

IN_BROWSER = "STOKE_IN_BROWSER" in os.environ
OVER_SSH = IN_BROWSER or "SSH_CONNECTION" in os.environ or "SSH_TTY" in os.environ

os.environ.setdefault("TEXTUAL_FPS", "15" if OVER_SSH else "120")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
