from collections import Counter
from importlib.resources import files


def most_common(text: str, count: int) -> list[tuple[str, int]]:
    stop_words = set((files("wordstats") / "stop_words.txt").read_text().split())
    words = (word for word in text.lower().split() if word not in stop_words)
    return Counter(words).most_common(count)
