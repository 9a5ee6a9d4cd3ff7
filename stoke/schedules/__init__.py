"""Requests that run regularly: `stoke schedule`."""
