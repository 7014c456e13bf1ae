"""How server, nodes and users talk: signed requests over TLS, small JSON, and blobs that stream."""

__all__: list[str] = []
