"""Helpers: processes, events, logging, files, registries, environment report."""
