import wordstats
from click.testing import CliRunner
from wordstats.cli import main


def test_stop_words_are_not_counted():
    assert wordstats.most_common("the cat and the dog and the cat", 1) == [("cat", 2)]


def test_the_command_prints_its_version():
    result = CliRunner().invoke(main, ["the cat"])
    assert result.output.splitlines() == ["wordstats 1.4.0", "1 cat"]
