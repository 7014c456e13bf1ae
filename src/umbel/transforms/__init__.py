"""Transforms: what a node does to its update before it leaves, and what the server makes of it before the gate.

They are skins of an onion: in order on the node, reversed on the server. Both sides are given the same list:
``strategy(transforms=LIST)`` and ``ClientApp(mods=[transforming(*LIST)])``. The server tells the names with every
instruction to train, a node says with its reply what it did, and each side refuses in a sentence what does not match.
The model is transformed, and nothing else: metrics and companions go as they are.
"""

from umbel.transforms._moved import clipped, noisy
from umbel.transforms._narrowed import narrowed
from umbel.transforms._onion import announced, transforming, undone
from umbel.transforms._transform import Transform

__all__ = ["Transform", "announced", "clipped", "narrowed", "noisy", "transforming", "undone"]
