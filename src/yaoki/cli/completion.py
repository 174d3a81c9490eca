"""Print a script that completes words on the tab key (bash, zsh, fish)."""

from __future__ import annotations

import click

from yaoki.cli.frame import output

INSTALL = {
    "bash": 'eval "$(yk completion bash)"                                   # in ~/.bashrc',
    "zsh": 'eval "$(yk completion zsh)"                                    # in ~/.zshrc, after compinit',
    "fish": "yk completion fish > ~/.config/fish/completions/yk.fish        # once",
}


@click.command(epilog="\b\nTo install:\n" + "\n".join(f"  {line}" for line in INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print a script that completes words on the tab key.

    Besides commands and options it completes the ids of runs, from the journal.
    """
    from click.shell_completion import get_completion_class

    from yaoki.cli.frame.root import root

    kind = get_completion_class(shell)
    assert kind is not None  # click knows these three
    # Not `kind(...).source()`: for bash that starts a bash to look at its version, also where none is installed.
    completer = kind(root, {}, "yk", "_YK_COMPLETE")
    script = kind.source_template % completer.source_vars()
    out = output()
    out.emit({"shell": shell, "script": script})
    out.say(script)
