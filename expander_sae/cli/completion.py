"""`expander-sae completion`: a completion script for bash, zsh or fish, made from the parser."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from expander_sae.cli.terminal import Terminal

SUMMARY = "print a completion script for bash, zsh or fish"
EXAMPLES = (
    "expander-sae completion bash >> ~/.bashrc",
    "expander-sae completion zsh > ~/.zfunc/_expander-sae",
    "expander-sae completion fish > ~/.config/fish/completions/expander-sae.fish",
)
SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True)
class Option:
    """flags as typed; choices of its value; whether it takes a value."""

    flags: tuple[str, ...]
    help: str
    choices: tuple[str, ...]
    takes_value: bool


@dataclass(frozen=True)
class Command:
    """words: what its positional arguments may be, empty for files."""

    name: str
    help: str
    options: tuple[Option, ...]
    words: tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.cli.main import build_parser

    write = {"bash": bash, "zsh": zsh, "fish": fish}[options.shell]
    script = write(commands_of(build_parser()))
    terminal.result({"shell": options.shell, "script": script}, [script])


def commands_of(parser: argparse.ArgumentParser) -> list[Command]:
    """The commands of a parser, as completion needs them."""
    chosen = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    summaries = {action.dest: action.help or "" for action in chosen._choices_actions}
    return [_command(name, summaries[name], sub) for name, sub in chosen.choices.items()]


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    options: list[Option] = []
    words: list[str] = []
    for action in parser._actions:
        choices = tuple(map(str, action.choices or ()))
        if action.option_strings:
            text = (action.help or "") % {"default": action.default, "prog": "", "dest": action.dest}
            options.append(Option(tuple(action.option_strings), text, choices, action.nargs != 0))
        else:
            words += choices
    return Command(name, summary, tuple(options), tuple(words))


def bash(commands: list[Command]) -> str:
    """For bash: words of the command, of an option with choices, or files."""
    cases = []
    for command in commands:
        flags = " ".join(flag for option in command.options for flag in option.flags)
        chosen = "".join(
            f"                {'|'.join(o.flags)}) "
            f'COMPREPLY=($(compgen -W "{" ".join(o.choices)}" -- "$word")); return ;;\n'
            for o in command.options
            if o.choices
        )
        inner = f'            case "$previous" in\n{chosen}            esac\n' if chosen else ""
        words = " ".join(command.words)
        cases.append(f"        {command.name})\n{inner}            flags='{flags}'; words='{words}' ;;\n")
    names = " ".join(command.name for command in commands)
    return f"""_expander_sae() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}} flags= words=
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{names} --help --version" -- "$word"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{"".join(cases)}    esac
    if [[ $word == -* ]]; then
        COMPREPLY=($(compgen -W "$flags" -- "$word"))
    elif [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}}
complete -o default -F _expander_sae expander-sae"""


def zsh(commands: list[Command]) -> str:
    """For zsh, as a function `_expander-sae` of the completion path."""
    cases = []
    for command in commands:
        rows = []
        for option in command.options:
            value = f":value:({' '.join(option.choices)})" if option.choices else ":value:_files"
            for flag in option.flags:
                rows.append(f"'{flag}[{_zsh_text(option.help)}]{value if option.takes_value else ''}'")
        rows.append(f"'*:argument:({' '.join(command.words)})'" if command.words else "'*:file:_files'")
        body = " \\\n                ".join(rows)
        cases.append(f"            {command.name}) _arguments \\\n                {body} ;;")
    names = " \\\n        ".join(f"'{c.name}:{_zsh_text(c.help)}'" for c in commands)
    joined = "\n".join(cases)
    return f"""#compdef expander-sae
_expander-sae() {{
    local -a commands
    commands=( \\
        {names} )
    if (( CURRENT == 2 )); then
        _describe command commands
    else
        local command=$words[2]
        shift words; (( CURRENT-- ))
        case $command in
{joined}
        esac
    fi
}}
_expander-sae "$@\""""


def fish(commands: list[Command]) -> str:
    """For fish."""
    first = "complete -c expander-sae -n __fish_use_subcommand"
    lines = [f"{first} -f"]
    for command in commands:
        lines.append(f"{first} -a {command.name} -d '{_fish_text(command.help)}'")
        there = f"complete -c expander-sae -n '__fish_seen_subcommand_from {command.name}'"
        for option in command.options:
            flags = " ".join(f"-l {f[2:]}" if f.startswith("--") else f"-s {f[1:]}" for f in option.flags)
            value = f" -x -a '{' '.join(option.choices)}'" if option.choices else " -r"
            lines.append(
                f"{there} {flags}{value if option.takes_value else ''} -d '{_fish_text(option.help)}'"
            )
        if command.words:
            lines.append(f"{there} -f -a '{' '.join(command.words)}'")
    return "\n".join(lines)


def _zsh_text(text: str) -> str:
    for mark in "[]:":
        text = text.replace(mark, f"\\{mark}")
    return text.replace("'", "’")


def _fish_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
