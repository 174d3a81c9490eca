"""Book a thousand trips while everything fails, and audit what is left."""

from __future__ import annotations

from pathlib import Path

import click

from yaoki.cli.frame import Exit, output
from yaoki.cli.frame.options import DURATION


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--trips", type=click.IntRange(min=1), default=1000, show_default=True, help="How many to book.")
@click.option("--faults", type=click.FloatRange(0.0, 1.0), default=0.2, show_default=True, help="The share of requests that fail.")
@click.option("--kills", type=click.IntRange(min=0), default=3, show_default=True, help="How often the orchestrator (or a participant) is killed with -9.")
@click.option("--seed", type=click.IntRange(min=0), help="Of everything that is drawn; a new one by default.")
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="Keep the databases in this folder.")
@click.option("--port", type=click.IntRange(0, 65530), default=0, help="First of six ports for the services; free ones by default.")
@click.option("--limit", type=DURATION, default="15m", show_default=True, help="Give up after this.")
@click.option("--choreographed", is_flag=True, help="With nobody in charge: the services take part over a broker, and are killed instead.")
@click.option("--broker", default="", metavar="URL", help="Of a choreographed demo: nats (its own server), nats://HOST:PORT or postgresql://...; a file by default.")
def command(ctx: click.Context, *, trips: int, faults: float, kills: int, seed: int | None, folder: Path | None, port: int,
            limit: float, choreographed: bool, broker: str) -> Exit | None:
    """Book a thousand trips while everything fails, and audit what is left.

    Starts six services with a database each, makes their requests fail in every way, kills the program that books, and
    reads the services' own databases in the end. Exit code 0 only if every trip is either booked whole or undone whole.
    """
    if ctx.invoked_subcommand is not None:
        return None
    from yaoki.errors import UsageError
    from yaoki.examples.travel.demo import run

    if broker and not choreographed:
        raise UsageError("--broker goes with --choreographed: otherwise nothing is sent over one", do="add --choreographed, or leave --broker out")
    return Exit(run(trips=trips, faults=faults, kills=kills, seed=seed, json=output().json, folder=folder, port=port, limit=limit,
                    choreographed=choreographed, broker=broker))


@command.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path, file_okay=False), help="Where to leave the picture; here by default.")
def history(*, folder: Path | None) -> Exit:
    """Lose two versions between DynamoDB, Lambda and S3 without a trace, and have them named and repaired.

    Runs all three on loopback, without Docker or an account. Takes half a minute, and leaves a picture of what happened.
    """
    from yaoki.examples.history.demo import run

    return Exit(run(json=output().json, folder=folder))
