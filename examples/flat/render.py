from markdown_it import MarkdownIt


def render(text: str) -> str:
    return MarkdownIt("commonmark").render(text)
