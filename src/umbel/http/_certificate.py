"""Certificates: made by the server itself, or given."""


class Certificate:
    """To be written."""
