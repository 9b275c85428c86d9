"""`quickstudy serve`: a trained learner for many at once, over HTTP and as a page in the browser."""

from __future__ import annotations

import os
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from quickstudy.cli.arguments import Command
from quickstudy.core.errors import UserError
from quickstudy.serve.guard import is_loopback
from quickstudy.serve.limits import Limits
from quickstudy.serve.running import Settings, run

TOKEN = "QUICKSTUDY_TOKEN"
"""The variable that may hold the token."""
SHORTEST = 16
"""Letters of a token."""


def _add(parser: ArgumentParser) -> None:
    most = Limits()
    parser.add_argument("checkpoint", type=str, help="the file that `quickstudy train` wrote, or tabular")
    parser.add_argument("--store", type=str, default="tasks.sqlite", help="a file, or postgresql://user@host/database")
    parser.add_argument("--host", type=str, default="127.0.0.1", help="0.0.0.0 for all networks; needs a token")
    parser.add_argument("--port", type=int, default=8000, help="0 for a free one")
    parser.add_argument("--workers", type=int, default=1, help="processes that share the port and the store")
    about = f"a file with the token that all requests must bear; or set {TOKEN}"
    parser.add_argument("--token_file", type=str | None, default=None, help=about)
    parser.add_argument("--open", action="store_true", help="serve other machines without a token")
    parser.add_argument("--trust", type=str | None, default=None, help="what `quickstudy calibrate` wrote, if moved")
    parser.add_argument("--gather_ms", type=float, default=2.0, help="how long a request waits for others to join")
    about = "requests worked out at once; 1 for answers that never depend on others, not even in rounding"
    parser.add_argument("--batch", type=int, default=64, help=about)
    parser.add_argument("--max_body", type=int, default=most.body, help="bytes of a request")
    parser.add_argument("--max_rows", type=int, default=most.rows, help="rows of a request, and of a task")
    parser.add_argument("--max_classes", type=int, default=most.classes, help="classes of a task")
    parser.add_argument("--max_letters", type=int, default=most.letters, help="letters of a text")
    parser.add_argument("--max_pixels", type=int, default=most.pixels, help="pixels of all images of a request")
    parser.add_argument("--max_tasks", type=int, default=most.tasks, help="tasks kept at once")
    about = "for a request to arrive, and to be answered"
    parser.add_argument("--max_seconds", type=float, default=most.seconds, help=about)
    about = "requests a second of one client, to each worker; 0 for no limit"
    parser.add_argument("--rate", type=float, default=most.rate, help=about)
    parser.add_argument("--max_connections", type=int, default=most.connections, help="open at once, to each worker")


def run_serve(options: Namespace) -> int:
    if options.workers < 1 or options.batch < 1 or not 0 <= options.gather_ms <= 1000:
        raise UserError(
            f"--workers is {options.workers}, --batch {options.batch} and --gather_ms {options.gather_ms}: give at "
            "least 1, at least 1, and 0 to 1000."
        )
    if not 0 <= options.port < 65536:
        raise UserError(f"--port is {options.port}: give a number from 0 to 65535.")
    token = read_token(options.token_file)
    if not token and not options.open and not is_loopback(options.host):
        raise UserError(
            f"--host is {options.host}, where others could use this machine: give --token_file, or --open to let them."
        )
    limits = Limits(
        body=options.max_body, rows=options.max_rows, classes=options.max_classes, letters=options.max_letters,
        pixels=options.max_pixels, tasks=options.max_tasks, seconds=options.max_seconds, rate=options.rate,
        connections=options.max_connections,
    )  # fmt: skip
    settings = Settings(
        options.checkpoint, options.store, options.host, options.port, options.workers, options.gather_ms / 1000,
        options.batch, options.trust or "", token, limits,
    )  # fmt: skip
    return run(settings, lambda line: print(line, flush=True))


def read_token(path: str | None) -> str:
    """The token in a file, else that of the environment; "" for none.

    Raises UserError for a file that cannot be read, or what is too short or no word.
    """
    where = path or TOKEN
    try:
        token = Path(path).read_text("utf-8").strip() if path else os.environ.get(TOKEN, "").strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read the token in {path}: {said}; give a file with one line.") from None
    if not token and not path:
        return ""
    if len(token) < SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise UserError(
            f"the token in {where} is no word of {SHORTEST} letters or more: make one with `openssl rand -hex 24`."
        )
    return token


SERVE = Command(
    "serve",
    "Serve a trained learner over HTTP, with a page for the browser: new tasks from a handful of examples.",
    "quickstudy serve runs/glyphs/best.safetensors --port 8000\n"
    "quickstudy serve tabular --host 0.0.0.0 --token_file token.txt --store postgresql://me@db/tasks --workers 4",
    _add,
    run_serve,
)
