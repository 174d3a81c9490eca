"""Find what was lost between a source and a sink, in our pipelines and in other people's."""

from __future__ import annotations

import click

from yaoki.cli.audit.findings import acknowledge, gaps, show
from yaoki.cli.audit.pipeline import pipeline, repair


class _Audit(click.Group):
    """`yk audit dynamodb://...` is `yk audit pipeline dynamodb://...`: whoever audits types a source, not a verb."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and "://" in args[0]:
            return "pipeline", pipeline, args
        return super().resolve_command(ctx, args)


@click.group(cls=_Audit)
def command() -> None:
    """Find what was lost between a source and a sink, in our pipelines and in other people's.

    \b
    yk audit SOURCE --sink SINK [--watch] [--repair]     look; exit 1 on findings
    yk audit gaps|show|acknowledge                       what was found
    yk audit repair SOURCE --sink SINK                   bring back what is missing

    \b
    SOURCE  dynamodb://TABLE · sqlite:///FILE, postgresql://... (a ledger) · the same with #TABLE · sqs://QUEUE · nats://HOST/STREAM
            dynamodb-ledger://NAME · broker+URL#TYPE
    SINK    's3://BUCKET/logs/{key}-{version}.log' · 'FOLDER/{key}-{version}.log' · postgresql://...#TABLE · https://...
    """  # noqa: D301  \b must reach click as one character


for verb in (pipeline, repair, gaps, show, acknowledge):
    command.add_command(verb)
