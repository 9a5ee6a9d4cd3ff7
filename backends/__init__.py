"""Where jobs run: one package for each backend, found through the entry points `stoke.backends`."""
