from render import render


def test_emphasis():
    assert render("*a*") == "<p><em>a</em></p>\n"
