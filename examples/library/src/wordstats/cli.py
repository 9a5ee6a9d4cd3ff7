import click

from wordstats import __version__, most_common


@click.command()
@click.option("--count", default=2, show_default=True, help="How many words to print.")
@click.argument("text")
def main(count: int, text: str) -> None:
    """Print the most common words of TEXT, without stop words."""
    click.echo(f"wordstats {__version__}")
    for word, times in most_common(text, count):
        click.echo(f"{times} {word}")
