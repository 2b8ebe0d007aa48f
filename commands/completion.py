"""Have a shell complete what is typed: ``completion``."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")

INSTALL = {
    "bash": ("flagsweep completion bash > ~/.local/share/bash-completion/completions/flagsweep", "a new shell has it"),
    "zsh": ("flagsweep completion zsh > ~/.zfunc/_flagsweep", "with 'fpath+=~/.zfunc' before compinit in ~/.zshrc"),
    "fish": ("flagsweep completion fish > ~/.config/fish/completions/flagsweep.fish", "a new shell has it"),
}
"""Where each shell looks for such a script, and what else that takes."""

HERE = {
    "bash": 'eval "$(flagsweep completion bash)"',
    "zsh": 'eval "$(flagsweep completion zsh)"',
    "fish": "flagsweep completion fish | source",
}
"""What has the shell that is open complete at once."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print what has a shell complete commands, options, and names of the site.

    The script says at its top how to install it. Kinds, lanes and schedules are those of the site that a command would take, too:
    looked up quietly, within two seconds, or not offered.

    \b
    eval "$(flagsweep completion bash)"
    flagsweep completion fish | source
    """
    from click.shell_completion import get_completion_class

    shells = get_completion_class(shell)
    assert shells is not None  # click has the three from 8.0 on.
    script = shells(ctx.find_root().command, {}, "flagsweep", "_FLAGSWEEP_COMPLETE").source()
    where, then = INSTALL[shell]
    told = f"# To install it: {where}\n#   {then}. For this shell alone: {HERE[shell]}\n"
    first, line_end, rest = script.partition("\n") if script.startswith("#compdef") else ("", "", script)  # zsh wants it first.
    click.echo(f"{first}{line_end}{told}{rest}", nl=False)
