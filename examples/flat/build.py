"""Print the pages of this folder as HTML: stoke run -r requirements.txt build.py"""

from pathlib import Path

from render import render

PAGES = Path(__file__).parent / "pages"

for page in sorted(PAGES.glob("*.md")):
    print(f"<!-- {page.name} -->")
    print(render(page.read_text()), end="")
