"""The screens in a browser (`stoke serve`)."""
