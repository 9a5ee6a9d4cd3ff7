from packaging.version import Version

RELEASES = {"tea": ["1.9", "1.10", "2.0rc1"], "coffee": ["3.1"]}


def newest(product: str) -> str:
    """Return the newest release of a product that is not a pre-release."""
    versions = [Version(text) for text in RELEASES[product]]
    return str(max(version for version in versions if not version.is_prerelease))


def main() -> None:
    for product in RELEASES:
        print(product, newest(product))
