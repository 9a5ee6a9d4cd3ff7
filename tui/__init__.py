"""What you see: the screens. They talk to the core and reach backends through its registry only.

Textual reads these variables when it is imported, so they are set before anything here imports it.
Over SSH a frame costs 13 KiB and more, and frames queue up in front of the keys: few frames and no
animations are what keeps a slow link quick. Elsewhere what a key does waits for the next frame, often
for two, and nothing is drawn while nothing changes. Whoever sets them keeps their own.
"""

import os

OVER_SSH = "SSH_CONNECTION" in os.environ or "SSH_TTY" in os.environ

os.environ.setdefault("TEXTUAL_FPS", "15" if OVER_SSH else "120")
os.environ.setdefault("TEXTUAL_ANIMATIONS", "none")
