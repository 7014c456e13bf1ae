"""What is said at the end of a run: where everything is, and what the app has to say about it."""

from collections.abc import Iterator

from umbel.cli._folder import RunFolder
from umbel.cli._screen import Screen
from umbel.cli._text import command, counted, duration, printable, size
from umbel.history import History


def conclude(screen: Screen, folder: RunFolder, history: History) -> None:
    """Print the digest, the files of the run, and the command that looks into them."""
    look = command("umbel", "inspect", str(folder.path))
    if screen.json:
        files = {"model": str(folder.model), "history": str(folder.history), "plot": str(folder.plot)}
        screen.emit({"event": "run-saved", "run": folder.name, "digest": history.digest, **files, "next": look})
        return
    for line in _summary(folder, history):
        screen.say(line)
    screen.say(f"next     {look}", style="bold")


def report(screen: Screen, text: object) -> None:
    """Print what the app says about the run, in JSON as an event of its own."""
    if screen.json:
        screen.emit({"event": "report", "text": str(text)})
    else:
        screen.say()
        screen.say(printable(str(text)))


def _summary(folder: RunFolder, history: History) -> Iterator[str]:
    reports = history.rounds if history.statistics is None else (history.statistics, *history.rounds)
    seconds = sum(sum(report.seconds.values()) for report in reports)
    count = sum(sum(report.bytes.values()) for report in reports)
    yield ""
    yield f"{counted(len(history.rounds), 'round')} in {duration(seconds)}, {size(count)} sent and received"
    yield f"digest   {history.digest}"
    yield f"model    {folder.model}"
    yield f"history  {folder.history}"
    yield f"plot     {folder.plot}"
