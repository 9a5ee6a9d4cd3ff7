"""Code that several backends share. Backends import this package and never each other."""
