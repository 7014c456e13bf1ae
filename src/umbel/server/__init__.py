"""The server: members, runs and rounds, over the ledger and HTTP."""

__all__: list[str] = []
