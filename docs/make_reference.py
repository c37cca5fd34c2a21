"""Write docs/reference/*.md and plasticity/config/config.schema.json.

They are made from the registry, the command line and the docstrings.

python docs/make_reference.py
"""

import inspect
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import config_schema
import make_pages
import typer

import plasticity
from plasticity import plots, results
from plasticity.cli import main as cli
from plasticity.config import experiments
from plasticity.config.docstrings import markdown, unmarked
from plasticity.config.probes import Probe
from plasticity.config.registry import FAMILIES
from plasticity.config.schema import schema_of
from plasticity.config.starts import Start
from plasticity.config.tuning import Tune
from plasticity.runs.launch import registry

DOCS = Path(__file__).resolve().parent
MADE = "<!-- Made by docs/make_reference.py. -->"
PAGES_OF = {
    **{family: f"{family}.md" for family in ("activations", "optimizers", "schedules", "replays")},
    "transforms": "../streams.md",
}


# ------------------------------------------------------------------------------------------------ the config file


def comments(record: type) -> dict[str, str]:
    """The comment on each field of a dataclass."""
    found = re.findall(r"^ +(\w+): .*?  # (.+)$", unmarked(inspect.getsource(record)), re.MULTILINE)
    return {name: text[0].upper() + text[1:] if text[1:2].isalpha() else text for name, text in found}


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def page_of(family: str) -> str:
    return PAGES_OF.get(family, f"../{family}.md")


def keys(record: type) -> list[str]:
    """A table of the keys that a dataclass defines."""
    texts, settings = comments(record), schema_of(record)
    lines = ["| key | allowed | default | meaning |", "|---|---|---|---|"]
    for name, setting in settings.items():
        allowed = setting.allowed
        if setting.family:
            allowed = allowed.replace(setting.family, f"[{setting.family}]({page_of(setting.family)})")
        elif allowed.startswith("a mapping") and record is experiments.ConfigFile:
            allowed = allowed.replace("a mapping", f"[a mapping](#{name})")
        lines.append(f"| `{name}` | {cell(allowed)} | `{setting.default_text}` | {cell(texts.get(name, ''))} |")
    return [*lines, ""]


def listing(known: Any) -> list[str]:
    lines = ["| family | members |", "|---|---|"]
    for family in FAMILIES:
        names = ", ".join(f"`{name}`" for name in config_schema.built_in(known, family))
        lines.append(f"| [{family}]({page_of(family)}) | {names} |")
    return [*lines, ""]


CONFIG_HEAD = """# Config file

{made}

A config is one YAML file (the 1.2 core schema: `1e-3` is a number, `on` and `no` are text). `plasticity plan CONFIG`
checks it and runs nothing. `KEY=VALUE` on the command line changes a key: `agent.optimizer.learning_rate=1e-3`,
`interventions.weight_decay.rate=0`.

A **member** is a name, or a mapping with settings: `adam` or `{{kind: adam, learning_rate: 1e-3}}`. Settings
without `kind` change the default member.

Editors that support JSON schemas can complete and check a config. This command writes the schema to a file:

```
plasticity schema > config.schema.json
```

For the YAML language server, which VS Code and other editors use, begin the config with the path of that file, relative
to the config:

```yaml
# yaml-language-server: $schema=config.schema.json
```

The schema has the built-in members only, so it marks members of plug-ins as unknown.

"""
ARMS = """## arms

`arms` maps the name of each arm to its changes. `baseline: {}` changes nothing.

| key | allowed | default | meaning |
|---|---|---|---|
| `agent` | one of the agents, or settings | the experiment's | Changes its settings; another `kind` replaces it |
| `interventions` | a list of interventions | the experiment's | Replaces the experiment's list |
| `task_aware` | true or false | the experiment's | Whether the learner may know of task switches |
| `sweep` | a mapping of dotted paths to lists | | Added to the experiment's; `null` removes a path |
| `control` | the name of another arm | `fresh`, if there is one | The arm that is its fresh control |
| `start` | a mapping | | Its learners go on from another run: [fork and probe a run](../howto/fork.md) |

## sweep

`sweep` maps dotted paths to lists of values; every combination is a point. A path begins with `agent.` or
`interventions.`. Points that differ only in traced numbers share one compiled program. The key `points` lists points
instead of a grid: `points: [{PATH: VALUE, PATH: VALUE}, ...]`, all with the same paths.

"""


SECTIONS: Mapping[type, str] = {Probe: "probes"}


def config_page(known: Any) -> str:
    lines = [CONFIG_HEAD.format(made=MADE) + "## Keys\n", *keys(experiments.ConfigFile), ARMS]
    for record in (experiments.Schedule, Tune, experiments.Evaluation, Start, Probe, experiments.Placement):
        name = SECTIONS.get(record, record.__name__.lower())
        lines += [f"## {name}\n", markdown(record.__doc__ or ""), "", *keys(record)]
    return "\n".join([*lines, "## Members\n", *listing(known)]).rstrip() + "\n"


# ------------------------------------------------------------------------------------------------ the command line


KINDS = {Path: "PATH", int: "INTEGER", float: "NUMBER", str: "TEXT"}


def parameter(found: Any, annotation: Any) -> tuple[str, str, str]:
    """Name, default and help of an argument or an option, from the command and the annotation of its function."""
    kind = get_args(annotation)[0]
    if found.param_type_name == "argument":
        shown = found.metavar or (found.name.upper() if found.required else f"[{found.name.upper()}]")
    else:
        word = next((KINDS[each] for each in (kind, *get_args(kind)) if each in KINDS), "")
        flags = "/".join([", ".join(found.opts), *found.secondary_opts])
        shown = flags if kind is bool else f"{flags} {found.metavar or word}"
    if kind is bool:
        default = found.opts[0] if found.default and found.secondary_opts else ""
    else:
        default = "" if found.required or found.default in (None, "") else str(found.default)
    return shown, default, found.help or ""


def command_section(name: str, command: Any) -> list[str]:
    hints = get_type_hints(command.callback, include_extras=True)
    rows = [parameter(each, hints[each.name]) for each in command.params if each.name in hints]
    lines = [f"## plasticity {name}", "", markdown(command.callback.__doc__ or ""), ""]
    if rows:
        lines += ["| argument or option | default | meaning |", "|---|---|---|"]
        lines += [f"| `{cell(flag)}` | {f'`{d}`' if d else ''} | {cell(text)} |" for flag, d, text in rows]
        lines.append("")
    return lines


def cli_page(known: Any) -> str:
    del known
    about = cli.app.info
    lines = ["# Command line", "", MADE, "", str(about.help), ""]
    codes = str(about.epilog).removeprefix("Exit codes: ").rstrip(".").split("; ")
    lines += ["| exit code | meaning |", "|---|---|", *(f"| {exit_code(code)} |" for code in codes), ""]
    lines += [
        "`plasticity --version` prints the version; `plasticity --install-completion` sets up tab completion.",
        "",
    ]
    group: Any = typer.main.get_command(cli.app)
    for name, command in group.commands.items():
        lines += command_section(name, command)
    return "\n".join(lines).rstrip() + "\n"


def exit_code(text: str) -> str:
    found = re.match(r"(128 \+ N|\d+) (.*)", text)
    return f"{found[1]} | {found[2]}" if found else text


# ------------------------------------------------------------------------------------------------ Python


def signature(function: Callable[..., Any]) -> str:
    """The names of the arguments and their defaults; types are in the sources."""
    parts, star = [], False
    for each in inspect.signature(function).parameters.values():
        prefix = "*" if each.kind is each.VAR_POSITIONAL else "**" if each.kind is each.VAR_KEYWORD else ""
        if each.kind is each.KEYWORD_ONLY and not star:
            parts.append("*")
        star = star or each.kind in (each.KEYWORD_ONLY, each.VAR_POSITIONAL)
        default = "" if each.default is each.empty else f"={each.default!r}"
        parts.append(f"{prefix}{each.name}{default}")
    return ", ".join(parts)


def entry(module: str, name: str, thing: Any) -> list[str]:
    title = f"{module}.{name}"
    if inspect.isclass(thing):
        fields = getattr(thing, "_fields", ())
        call = f"{title}({', '.join(fields)})" if fields else title
    else:
        call = f"{title}({signature(thing)})"
    text = markdown(thing.__doc__ or "")
    return [f"### {name}", "", "```python", call, "```", "", text.replace("{", "&#123;").rstrip(), ""]


def api_page(known: Any) -> str:
    del known
    lines = ["# Python", "", MADE, ""]
    lines += [
        "This interface is stable within a minor version. For examples, see [Analyse a run](../howto/analyse.md).",
        "",
    ]
    for module in (plasticity, results, plots):
        names = [name for name in module.__all__ if not name.startswith("__")]
        lines += [f"## {module.__name__}", "", markdown(module.__doc__ or ""), ""]
        for name in names:
            lines += entry(module.__name__, name, getattr(module, name))
    return "\n".join(lines).rstrip() + "\n"


# ------------------------------------------------------------------------------------------------ members


def members_page(family: str, intro: str) -> Callable[[Any], str]:
    def page(known: Any) -> str:
        del known
        about = f"{intro}\n\n{make_pages.on_one_stream(family)}"
        return f"# {family.capitalize()}\n\n{MADE}\n\n{about}{make_pages.sections(family).rstrip()}\n"

    return page


ACTIVATIONS = (
    "In a config: `activation: tanh` or `activation: {kind: swish, slope: 1.5}` of a network, for all of its hidden "
    "layers; with memory, of its `torso`. Settings are static. Those with `learned` have parameters, for each unit "
    "(`unit`) or for each layer (`layer`), which the optimizer changes like biases: decay and penalties of the kernels "
    "leave them alone, those of all parameters (`which: all`) do not. A method that resets a unit gives its own "
    "parameters their initial values; those of a layer are reset with the layer. To add your own: "
    "[Write an activation](../howto/activation.md)."
)
OPTIMIZERS = (
    "In a config: `optimizer: {kind: adam, learning_rate: 1.0e-3}` of an agent. To add your own: "
    "[Write an optimizer](../howto/optimizer.md)."
)
SCHEDULES = (
    "In a config: `schedule: {kind: cosine, duration: 100_000}` of an optimizer, which multiplies its "
    "learning rate by the value, or `epsilon: {end: 0.01, duration: 100_000}` of an agent."
)
REPLAYS = (
    "In a config: `replay: {kind: prioritised, capacity: 100_000, minimum: 5_000}` of `dqn`, `c51`, `rainbow`, `sac` "
    "or `td3`."
)
WRITTEN: Mapping[str, Callable[[Any], str]] = {
    "reference/config.md": config_page,
    "reference/cli.md": cli_page,
    "reference/api.md": api_page,
    "reference/activations.md": members_page("activations", ACTIVATIONS),
    "reference/optimizers.md": members_page("optimizers", OPTIMIZERS),
    "reference/schedules.md": members_page("schedules", SCHEDULES),
    "reference/replays.md": members_page("replays", REPLAYS),
    "../plasticity/config/config.schema.json": config_schema.text,
}


def main() -> None:
    known = registry()
    for name, made in WRITTEN.items():
        (DOCS / name).write_text(made(known), encoding="utf-8")


if __name__ == "__main__":
    main()
