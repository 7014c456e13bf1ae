"""Objects on their way out: for this process they are gone at once, while a network hears of it in its own time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from umbel.errors import StoreError, StoreUnavailable


class Watch:
    """Tells whether an object was removed while something else was done with it."""

    def __init__(self) -> None:
        self.removed = False


class Removals:
    """Removes objects one after the other with ``remove``, in a thread that ends when there are none.

    One that cannot be removed stays: nothing names it, and the next pass over the garbage finds it again. Under
    ``gate`` nothing begins to be removed.
    """

    def __init__(self, remove: Callable[[str], None]) -> None:
        self._remove = remove
        self.gate = threading.Condition()
        self._going: dict[str, None] = {}
        self._watches: dict[str, list[Watch]] = {}
        self._is_busy = False

    def add(self, digest: str) -> None:
        """Have an object removed soon."""
        with self.gate:
            self._going[digest] = None
            for watch in self._watches.get(digest, ()):
                watch.removed = True
            if not self._is_busy:
                self._is_busy = True
                threading.Thread(target=self._run, name="umbel-removals", daemon=True).start()

    def __contains__(self, digest: object) -> bool:
        return digest in self._going

    def all(self) -> set[str]:
        """Return the objects that are on their way out."""
        with self.gate:
            return set(self._going)

    def wait(self, digest: str, seconds: float) -> None:
        """Return when an object is not on its way out; raises ``StoreUnavailable`` if it is after so many seconds."""
        with self.gate:
            if not self.gate.wait_for(lambda: digest not in self._going, seconds):
                raise StoreUnavailable(
                    "the object store takes its time to remove what was there before; the request can be repeated",
                    at=digest,
                )

    @contextmanager
    def watch(self, digest: str) -> Iterator[Watch]:
        """See whether an object is removed from now on."""
        watch = Watch()
        with self.gate:
            self._watches.setdefault(digest, []).append(watch)
        try:
            yield watch
        finally:
            with self.gate:
                self._watches[digest].remove(watch)
                if not self._watches[digest]:
                    del self._watches[digest]

    def _run(self) -> None:
        while True:
            with self.gate:
                digest = next(iter(self._going), None)
                if digest is None:
                    self._is_busy = False
                    return
            with suppress(StoreError):
                self._remove(digest)
            with self.gate:
                del self._going[digest]
                self.gate.notify_all()
