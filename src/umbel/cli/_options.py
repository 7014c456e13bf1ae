"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]

Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="URL",
        help="The server, as https://host:8443; with #TOKEN to join it first. May be left out when you know one only.",
        show_default=False,
    ),
]

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="FOLDER",
        help="The data folder of a server on this machine: its operator's key is there.",
        show_default=False,
    ),
]
