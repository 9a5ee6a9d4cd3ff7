"""Where jobs run: one folder a backend, each found through the entry points `stoke.backends`."""
