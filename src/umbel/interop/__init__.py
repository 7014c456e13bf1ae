"""Bridges to other libraries; each module here needs the library it is named after, and nothing else in Umbel does."""

__all__: list[str] = []
