"""Settings of all tests: hypothesis judges what a test finds, never how long it took."""

import os

from hypothesis import settings

# On a build server the same examples are tried each time, so that a change fails for what it changed.
settings.register_profile("umbel", deadline=None, derandomize="CI" in os.environ, print_blob=True)
settings.load_profile("umbel")
