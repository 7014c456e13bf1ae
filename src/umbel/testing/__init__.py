"""Conformance suites that anyone can run on a store, an engine or a codec of their own."""

__all__: list[str] = []
