from importlib.metadata import version

from wordstats.counting import most_common

__all__ = ["most_common"]
__version__ = version("wordstats")
