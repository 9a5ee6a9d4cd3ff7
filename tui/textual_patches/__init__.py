"""Everything that works around Textual 8.2.8, one module for each behaviour.

These modules use private parts of Textual, so `pyproject.toml` pins its exact version. Read each of
them again, and drop what Textual has fixed, before raising that version.
"""
