"""The worker of a running node, and the one thread that waits for it."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from umbel.node._jobs import Job, Outcome
from umbel.node._settings import Settings
from umbel.node._worker import Worker


class Workshop:
    """A worker, used from the event loop. Its process is started by a thread that lives as long as it."""

    def __init__(self, settings: Settings) -> None:
        policy = settings.policy
        self._worker = Worker(
            settings.app,
            settings.app_folder,
            memory=policy.memory,
            handler=policy.handler,
            tracebacks=policy.tracebacks,
        )
        self._thread = ThreadPoolExecutor(1, "umbel-handler")

    async def start(self) -> tuple[str, ...]:
        """Load the app and return the message types that it handles; raises ``AppError``."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.start)

    async def run(self, job: Job) -> Outcome:
        """Handle a message."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.run, job)

    def kill(self) -> None:
        """Stop what is being handled."""
        self._worker.kill()

    async def discard(self) -> None:
        """End the process; the next message is handled by a new one."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._worker.stop)

    def close(self) -> None:
        """End the process."""
        self._worker.kill()
        self._thread.shutdown()
        self._worker.stop()
