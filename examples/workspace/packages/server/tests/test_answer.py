from shop_server import answer


def test_the_newest_release_is_answered():
    assert answer("tea") == "tea 1.10 (catalog 2.5.0)"
