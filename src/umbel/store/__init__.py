"""What a server keeps: blobs, named by digest, and the ledger of everything that happened."""

__all__: list[str] = []
