"""The command line: `yk NOUN VERB`. Every file here is a noun, and adding one is adding a file.

    \"\"\"Show the dead-letter box, and send messages again.\"\"\"     # msgs.py: its first line is what `yk --help` shows

    import click

    from yaoki.cli.frame import Exit, output
    from yaoki.cli.frame.options import DURATION, setting

    @click.group()                            # or @click.command() for a noun without verbs
    def command() -> None:                    # the name is fixed; the noun is the file's name, `_` shown as `-`
        \"\"\"Show the dead-letter box, and send messages again.\"\"\"

    @command.command("list")
    @setting("--db", "db")                    # flag > YAOKI_DB > yaoki.toml or pyproject.toml > default
    def list_(*, db: str) -> Exit | None:         # click passes everything by name
        \"\"\"List what could not be delivered.\"\"\"
        from yaoki.messages import ...        # whatever is heavy is imported inside: `yk --help` loads no noun at all
        out = output()
        out.emit({"id": ...})                 # a line of JSON, with --json only
        out.say("3 dead letters")             # for people, without --json only
        out.table(("id", "error"), rows)      # for people as well
        return Exit.FINDING                   # None is Exit.OK

What the frame does for every noun: `--json` (added to each command that has no such option of its own), `-h`, colour only
where it is wanted, "did you mean", and errors: a verb raises a `YaokiError` and the frame prints it with its code, its
reason and what to do next, as text or JSON, never as a traceback. New settings go into `frame/settings.py`, a line each.
A noun that outgrows a file becomes a folder whose `__init__.py` has the `command`. Then write the pages anew:

    python -m yaoki.cli.frame.reference docs/reference/cli.md       # what --help says
    python -m yaoki.cli.frame.catalogue docs/reference/errors       # a page a code; new codes need an entry there
"""

from yaoki.cli.frame.root import main

__all__ = ["main"]
