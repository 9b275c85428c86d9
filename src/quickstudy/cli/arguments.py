"""From a command line to options: short names, a YAML file, overrides, and one sentence where they do not fit.

What is chosen by name (`--learner maml`) brings its own options (`--learner.inner_steps 3`): they are the
arguments of the constructor, so `--help`, the YAML file and Python all speak of the same things.
"""

from __future__ import annotations

import json
import re
from argparse import Action, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

import torch
import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace

from quickstudy.core.catalogue import arguments, catalogue
from quickstudy.core.errors import UserError, nearest
from quickstudy.nets import DEFAULTS
from quickstudy.tasks.guess import guess

DECIDED: dict[str, set[str]] = {
    "tasks": set(),
    "learner": {"net", "objective", "x_shape", "classes", "description_shape"},
    "net": {"x_shape", "out"},
}
"""For each slot, the arguments that are not the user's to give: the tasks decide them."""


class _Format(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keep the lines of the examples."""


@dataclass(frozen=True)
class Command:
    """One command of the tool.

    add: adds the command's own options to a parser. run: does the work, and returns the exit code.
    named: the slots whose entry is chosen by name, with the name that stands for no choice.
    defaults: what the words say without saying it (the tasks a checkpoint was trained on), as a tree.
    lists: options that take several values: `--beside A B`, `--beside A,B`, `--beside A --beside B`.
    """

    name: str
    summary: str
    example: str
    add: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    named: Mapping[str, str] = field(default_factory=dict)
    defaults: Callable[[Sequence[str]], Mapping[str, Any]] = lambda words: {}
    lists: tuple[str, ...] = ()


def parse(command: Command, argv: Sequence[str], before: Mapping[str, Any] | None = None) -> Namespace:
    """The options of a command: its defaults, then `before`, then `--config FILE`, then the words themselves.

    Raises UserError for an unknown option, name or value, and SystemExit after --help or --print_config.
    """
    wanted = "--print_config" in argv
    config, own = _config([word for word in argv if word != "--print_config"], command)
    config, own = _gathered(config, command), _gathered(own, command)
    words: list[str] = []
    for layer in (_from_tree(command.defaults(own), command), _from_tree(before or {}, command), config, own):
        words = _over(words, _shortened(layer, command), command)
    parser = _parser(command, _names(words, command))
    for word in words:
        option = word.split("=", 1)[0]
        if option.startswith("--") and len(option) > 2 and option not in parser._option_string_actions:
            raise UserError(f"`quickstudy {command.name}` has no option {option}: {_meant(option, parser, command)}")
    try:
        options = parser.parse_args(words)
    except ArgumentError as error:
        raise UserError(_sentence(str(error), command, parser)) from None
    if wanted:
        for action in _positional(parser):
            options.pop(action.dest, None)
        print(as_yaml(options), end="")
        raise SystemExit(0)
    return options


def check_seed(seed: int, option: str) -> None:
    """Raise UserError for a seed that torch cannot hold."""
    try:
        torch.Generator().manual_seed(seed)
    except (ValueError, RuntimeError, OverflowError):
        raise UserError(f"{option} is {seed}: give a whole number of at most 18 digits.") from None


def as_yaml(options: Namespace) -> str:
    """The options as the YAML that `--config` reads."""
    return yaml.safe_dump(_plain(options.as_dict()), sort_keys=False)


def _plain(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {k: _plain(v) for k, v in tree.items()}
    return [_plain(v) for v in tree] if isinstance(tree, list | tuple) else tree


def _parser(command: Command, names: Mapping[str, str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog=f"quickstudy {command.name}",
        usage="%(prog)s [options]",
        description=f"{command.summary}\n\nexample:\n  " + command.example.replace("\n", "\n  "),
        formatter_class=_Format,
        exit_on_error=False,
    )
    command.add(parser)
    places = {"?": "[{}]", "+": "{} ..."}
    given = [places.get(str(a.nargs), "{}").format(a.dest.upper()) for a in _positional(parser)]
    parser.usage = " ".join(["%(prog)s", *given, "[options]"])
    parser.epilog = "--config FILE: read options from a YAML file (words override it); --print_config: write one."
    for slot, name in names.items():
        entries = catalogue(slot)
        choices = f"one of: {', '.join(entries)}"
        if name in entries:
            parser.add_class_arguments(entries[name], slot, skip=DECIDED[slot], instantiate=False)  # type: ignore[arg-type]
            whole = parser._option_string_actions[f"--{slot}"]
            whole.metavar, whole.help = "NAME", choices
        elif slot == "net":
            _add_any_net(parser)
        parser.add_argument(f"--{slot}.name", type=str, default=name, help=f"the same as --{slot}; {choices}")
    # by default the statistics that suit the method
    if names.get("net") in catalogue("net") and "--net.norm" in parser._option_string_actions:
        parser.set_defaults({"net.norm": catalogue("learner")[names["learner"]].net_norm})
    return parser


def _add_any_net(parser: ArgumentParser) -> None:
    """The options of every network that the tasks may decide on."""
    for name in DEFAULTS:
        cls = catalogue("net")[name]
        hints = get_type_hints(cls.__init__)
        for option, parameter in arguments(cls).items():
            if option not in DECIDED["net"] and f"--net.{option}" not in parser._option_string_actions:
                about = f"of {name}, default {parameter.default}"
                parser.add_argument(f"--net.{option}", type=hints[option] | None, default=None, help=about)


def _positional(parser: ArgumentParser) -> list[Action]:
    return [action for action in parser._actions if not action.option_strings and action.dest != "cfg"]


def _meant(option: str, parser: ArgumentParser, command: Command) -> str:
    """A hint at the option that was meant."""
    if option.removeprefix("--") in (action.dest for action in _positional(parser)):
        return f"give it without {option}, as the first word."
    known = [o for o in parser._option_string_actions if o.startswith("--") and not o.endswith("+")]
    known += ["--config", "--print_config", *(f"--{slot}" for slot in command.named)]
    begun = [o for o in known if o.startswith(option)]
    close = f"did you mean {begun[0]!r}?" if begun else nearest(option, known)
    return close if close.startswith("did") else f"see `quickstudy {command.name} --help`."


def _gathered(words: Sequence[str], command: Command) -> list[str]:
    """All that is given to an option that takes several values as one JSON list."""
    out: list[str] = []
    found: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        name = option.removeprefix("--")
        if not option.startswith("--") or name not in command.lists:
            out.append(word)
            continue
        values = [value] if equals else []
        while not equals and rest and not rest[0].startswith("-"):
            values.append(rest.pop(0))
        if not values:
            raise UserError(f"{option} needs a value: see `quickstudy {command.name} --help`.")
        parts = [part.strip(" \"'[]") for value in values for part in value.split(",")]
        found.setdefault(name, []).extend(part for part in parts if part)
    return out + [f"--{name}={json.dumps(values)}" for name, values in found.items()]


def _names(words: Sequence[str], command: Command) -> dict[str, str]:
    """The chosen name of each slot.

    Raises UserError for one that is not in the catalogue.
    """
    names = dict(command.named)
    for slot in names:
        prefix = f"--{slot}.name="
        for word in words:
            if word.startswith(prefix):
                names[slot] = word.removeprefix(prefix)
        if names[slot] != command.named[slot]:
            catalogue(slot)[names[slot]]
    return names


def _shortened(words: Sequence[str], command: Command) -> list[str]:
    """`--learner maml` and `--learner.name maml` as `--learner.name=maml`; `--tasks PATH` as its source and path."""
    out: list[str] = []
    rest = iter(words)
    for word in rest:
        option, _, value = word.partition("=")
        slot = option.removeprefix("--").removesuffix(".name")
        if option.startswith("--") and slot in command.named and option in (f"--{slot}", f"--{slot}.name"):
            if "=" not in word:
                value = next(rest, "")
            if not value or value.startswith("--"):
                raise UserError(f"--{slot} needs a name: choose one of {', '.join(catalogue(slot))}.")
            if slot == "tasks" and value not in catalogue(slot) and value != command.named[slot] and _is_path(value):
                out += [f"--tasks.{option}={given}" for option, given in guess(value).items()]
                continue
            word = f"--{slot}.name={value}"
        out.append(word)
    return out


def _is_path(value: str) -> bool:
    return "/" in value or Path(value).suffix != "" or Path(value).exists()


def _over(words: list[str], more: list[str], command: Command) -> list[str]:
    """`more` after `words`; options of an entry that `more` replaces by another one are dropped."""
    before, after = _names(words, command), _names(more, command)
    gone = tuple(f"--{s}." for s in command.named if after[s] not in (command.named[s], before[s]))
    return [w for w in words if not (gone and w.startswith(gone))] + more


def _config(argv: Iterable[str], command: Command) -> tuple[list[str], list[str]]:
    """What the `--config` files say as words, and the words that are left."""
    config: list[str] = []
    own: list[str] = []
    rest = iter(argv)
    for word in rest:
        if word == "--config" or word.startswith("--config="):
            path = word.partition("=")[2] if "=" in word else next(rest, "")
            if not path or path.startswith("--"):
                raise UserError("--config needs a YAML file: give its path.")
            config += _from_tree(read_config(path), command)
        else:
            own.append(word)
    return config, own


def read_config(path: str | Path) -> dict[str, Any]:
    """The options in a YAML file.

    Raises UserError if it cannot be read or holds something else.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise UserError(f"cannot read the config {str(path)!r}: {error.strerror}; check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" (line {mark.line + 1})" if mark else ""
        raise UserError(f"the config {path} is no YAML{where}: write `option: value` lines.") from None
    if not isinstance(tree, dict):
        raise UserError(f"the config {path} holds no options: write `option: value` lines.")
    return tree


def _from_tree(tree: Mapping[str, Any], command: Command, prefix: str = "") -> list[str]:
    """Options in a tree as the words of a command line."""
    words: list[str] = []
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            words += _from_tree(value, command, f"{path}.")
        elif not prefix and (value is None or isinstance(value, bool)):
            words += [f"--{key}"] if value else []  # a flag, or nothing to say
        else:
            words.append(f"--{path}={value if isinstance(value, str) else json.dumps(value)}")
    return words


def _sentence(text: str, command: Command, parser: ArgumentParser) -> str:
    """What the parser has to complain about, as one sentence."""
    found = re.match(r'Parser key "([^"]+)":\s*(.*)', text, re.DOTALL)
    if found:
        key, detail = found.groups()
        value = re.findall(r"(?:Got value|value): (.*)", detail)
        detail = detail.split("Got value")[0]
        kind = re.search(r"Expected an? (.*?)\. *$", detail.strip().splitlines()[0])
        names = {"<class 'int'>": "a whole number", "<class 'float'>": "a number", "<class 'bool'>": "true or false"}
        wanted = names.get(kind.group(1), kind.group(1)) if kind else ""
        wanted = re.sub(r"typing\.Literal\[(.*)\]", r"one of \1", wanted)
        given = f" is {value[-1].strip()!r}" if value else " does not fit"
        return f"--{key}{given}: give {wanted or 'another value'}; see `quickstudy {command.name} --help`."
    text = " ".join(text.split()).rstrip(".")
    missing = re.fullmatch(r"the following arguments are required: (.*)", text)
    if missing:
        about = {a.dest: str(a.help) for a in _positional(parser)}
        needs = " and ".join(f"{name} ({about.get(name, 'a value')})" for name in missing.group(1).split(", "))
        return f"`quickstudy {command.name}` needs {needs}; see `quickstudy {command.name} --help`."
    text = re.sub(r"^unrecognized arguments: (.*)", rf"`quickstudy {command.name}` cannot place \1", text)
    text = re.sub(r"^argument (--\S+): expected .*", r"\1 needs a value", text)
    text = re.sub(r"^argument (--\S+): ignored explicit argument .*", r"\1 takes no value", text)
    return f"{text}; see `quickstudy {command.name} --help`."
