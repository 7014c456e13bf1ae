"""A node: it asks for work, runs the app in a process of its own, and never repeats what is finished."""

__all__: list[str] = []
