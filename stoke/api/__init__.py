"""Jobs over HTTP: the server of `stoke api`. It needs the package's `api` extra."""
