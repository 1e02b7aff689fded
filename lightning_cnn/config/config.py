"""`Config`: files and fields, checked, as plain data."""

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml

from lightning_cnn.config import schema
from lightning_cnn.config.checkpoint import PARTS, class_and_arguments, read_checkpoint
from lightning_cnn.config.layers import BATCHES, Layer, as_layer, last_class, last_given, note_names
from lightning_cnn.config.messages import WHICH_DATA, WHICH_EXPERIMENT, class_named
from lightning_cnn.config.schema import OF_TRAINING, TRAIN, Kind
from lightning_cnn.config.written import written
from lightning_cnn.errors import UserError
from lightning_cnn.modules.base import Task
from lightning_cnn.options import merged_signature, plain
from lightning_cnn.plain_text import check_tags, check_text
from lightning_cnn.tracking.record import default_runs_dir
from lightning_cnn.tracking.run import RunFolder
from lightning_cnn.tracking.settings import Value, flatten, relocated

Made = TypeVar("Made")
# fields of which jsonargparse accepts that they are null
FILLED = ("tags", "project", "wandb", "timeout_minutes", "seed_everything")


@dataclass(frozen=True)
class Config:
    """A checked experiment as plain data: what config.yaml holds.

    Attributes:
        kind: The kind of work, which says what fields there are.
        values: All fields with their defaults: `data`, `model` (each with `class_path` and `init_args`), `trainer`,
            `seed_everything`, `ckpt_path`, where it trains `checkpoint`, `experiment`, `runs_dir`, `tags`, `project`,
            `wandb`, `timeout_minutes`, and those of the kind's groups.
        layers: What it was parsed from, the later over the earlier.
        words: Words of a command line, over the layers.
        stem: Name of the last file that it was read from, without its suffix.
        checkpoint: What `ckpt_path` holds, None without one.
    """

    kind: Kind
    values: dict[str, Any]
    layers: tuple[Layer, ...] = field(default=(), compare=False, repr=False)
    words: tuple[str, ...] = field(default=(), compare=False, repr=False)
    stem: str | None = field(default=None, compare=False)
    checkpoint: dict[str, Any] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def load(cls, *layers: str | Path | Mapping[str, Any], kind: Kind = TRAIN, **fields: Any) -> Self:
        """Loads a configuration.

        Args:
            layers: Files and dicts; the later wins over the earlier. A name in a dict may be dotted (`model.lr`).
            kind: The kind of work.
            fields: Further fields, which win over all layers: `model={"lr": 0.1}`.

        Raises:
            UserError: In one line that names the field.
        """
        return cls.parse([*map(as_layer, layers), *([as_layer(fields)] if fields else [])], kind)

    @classmethod
    def of(
        cls, experiment: "Config | str | Path | Mapping[str, Any] | None", kind: Kind, /, *saved: Any, **fields: Any
    ) -> Self:
        """A configuration as the public functions take it.

        Args:
            experiment: A configuration, the name of a shipped experiment, a YAML file, or fields; None for none.
            kind: The kind of work.
            saved: In the place of an experiment: the layers of what goes on.
            fields: Fields over it; `seed` is short for `seed_everything`.

        Raises:
            UserError: In one line that names the field.
        """
        if (seed := fields.pop("seed", None)) is not None:
            if "seed_everything" in fields:
                raise UserError("`seed` and `seed_everything` are the same: remove one")
            fields["seed_everything"] = seed
        if saved and experiment is not None:
            raise UserError("`resume` keeps the configuration of the run: remove the experiment, or start a new run")
        if not isinstance(experiment, Config):
            try:
                return cls.load(*(saved if experiment is None else [experiment]), kind=kind, **fields)
            except UserError as error:
                if str(error) == WHICH_DATA:
                    raise UserError(WHICH_EXPERIMENT) from None
                raise
        if experiment.kind.fields and experiment.kind != kind:
            raise UserError(
                f"the configuration is for `{experiment.kind.name}()`: call that, or use another configuration"
            )
        layers = [layer._replace(is_noted=False) for layer in experiment.layers]  # each call looks at the names anew
        if experiment.words or experiment.kind != kind:
            theirs = next((layer.file for layer in reversed(layers) if not layer.is_written), None)
            layers = [Layer(experiment.given, theirs)]
        return replace(cls.parse([*layers, as_layer(fields)], kind), stem=experiment.stem)

    @classmethod
    def parse(cls, layers: Sequence[Layer], kind: Kind, words: Sequence[str] = ()) -> Self:
        """Parses layers, and over them the words of a command line that only jsonargparse understands.

        Args:
            layers: The layers, the later over the earlier.
            kind: The kind of work.
            words: Such as `--trainer.callbacks+=EarlyStopping --trainer.callbacks.patience 5`.

        Raises:
            UserError: In one line that names the field.
        """
        note_names(layers)
        schema.limit_imports()
        path = last_given(layers, "ckpt_path")
        check_text("`ckpt_path`", path)
        checkpoint = None if path is None else read_checkpoint(path)
        usual = schema.usual_model(last_class(layers, "model"), last_class(layers, "data"))
        layers = _with_modes_dropped(layers if kind.trains else [*map(_without_training, layers)])
        said = [layer.values for layer in layers]
        parser = _parser(kind, usual, checkpoint, layers)
        silent = [word for word in words if not word.startswith("--print_config")]
        parsed = parser.parse(said, silent)
        chosen: str = parsed["model"]["class_path"] if checkpoint is None else usual
        if chosen != usual or len(silent) < len(words):
            # once more: jsonargparse carries the defaults of a class over to the one that takes its place
            parser = _parser(kind, chosen, checkpoint, layers)
            parsed = parser.parse(said, words)
        files = [layer.file for layer in layers if layer.file is not None]
        check_text("`config`", files)
        values = written(parser, parsed)
        values["trainer"] |= {name: value for name, value in _batches(layers).items() if type(value) is int}
        for name, value in _texts(values):
            check_text(f"`{name}`", value)
        if (empty := next((name for name in FILLED if values.get(name, name) is None), None)) is not None:
            raise UserError(f"`{empty}` has no value: give one, or remove it")
        if kind.trains:
            check_tags(values["tags"], values["project"])
        model, data = (_no_base(values[of]["class_path"], base) for of, (_, base) in PARTS.items())
        if issubclass(model, Task):
            model.check_data(data)
        stem = files[-1].stem if files and files[-1].is_file() else None  # a pipe has no name
        return cls(kind, values, tuple(layers), tuple(words), stem, checkpoint)

    @cached_property
    def given(self) -> dict[str, Any]:
        """The fields that are given, without defaults."""
        said = [layer.values for layer in self.layers]
        parser = _parser(self.kind, self.values["model"]["class_path"], self.checkpoint, self.layers)
        found: dict[str, Any] = plain("", parser.given(said, self.words))
        if batches := _batches(self.layers):
            found["trainer"] |= batches
        return found

    def override(self, fields: Mapping[str, Any]) -> Self:
        """The configuration with other values, checked again.

        Args:
            fields: Such as `{"model.lr": 0.1}`.

        Raises:
            UserError: In one line that names the field.
        """
        earlier = [Layer(self.given, is_noted=True)] if self.words else self.layers
        noted = [layer._replace(is_noted=True) for layer in earlier]
        return replace(self.parse([*noted, as_layer(fields)], self.kind), stem=self.stem)

    def make(self, group: type[Made]) -> Made:
        """An object of a class among the kind's groups, from the values of its fields.

        Raises:
            UserError: If the class refuses them.
        """
        return group(**{name: self.values[name] for name in inspect.signature(group).parameters})

    def differences(self, other: Mapping[str, Any]) -> dict[str, tuple[Value, Value]]:
        """The settings in which another configuration differs: its value, then that of this one.

        An option that the other does not know, as it was written by an earlier version, differs if it is not the
        default.

        Args:
            other: Values, such as those in a config.yaml.
        """
        before, now = flatten(other), self.flat()
        names = sorted(before.keys() | now.keys())
        pairs = {name: (before.get(name), now.get(name)) for name in names}
        return {
            name: pair
            for name, pair in pairs.items()
            if pair[0] != pair[1] and not (name not in before and self._is_default(name))
        }

    def _is_default(self, name: str) -> bool:
        """Whether an option of a class, such as `data.batch_size`, has its default value."""
        part, _, field = name.partition(".")
        chosen = self.values.get(part)
        if not isinstance(chosen, dict) or "class_path" not in chosen or not field:
            return False
        options = merged_signature(class_named(chosen["class_path"], object)).parameters
        return field in options and bool(chosen.get("init_args", {}).get(field) == options[field].default)

    def flat(self) -> dict[str, Value]:
        """The settings by their dotted names, such as `model.lr`."""
        return flatten(self.values)

    def to_yaml(self) -> str:
        """The whole configuration; loaded again, it is the same."""
        return yaml.safe_dump(self.values, sort_keys=False)

    @property
    def runs_dir(self) -> Path:
        """The folder of all runs."""
        return Path(self.values["runs_dir"] or default_runs_dir())

    def __getitem__(self, name: str) -> Any:
        """The value of a field at the top, such as `seed_everything`."""
        return self.values[name]


def _parser(kind: Kind, usual: str, checkpoint: dict[str, Any] | None, layers: Sequence[Layer]) -> schema.SchemaParser:
    """The parser with the model that learns from the data, and what a checkpoint says, as defaults.

    Args:
        kind: The kind of work.
        usual: Class path of the model.
        checkpoint: The checkpoint, if any.
        layers: What is given.
    """
    known = {}
    path = last_given(layers, "ckpt_path")
    directory = "" if path is None else RunFolder.look(Path(path).absolute().parent.parent).record.directory
    for of in PARTS:
        try:
            if found := class_and_arguments(checkpoint or {}, of):
                known[of] = found[0], relocated({of: {"init_args": found[1]}}, directory)[of]["init_args"]
        except UserError:
            if last_given(layers, of) is None:
                raise  # no other class has been typed
    data = last_class(layers, "data") or known.get("data", ("",))[0]
    facts = schema.facts_for(usual, data)
    parser = schema.schema(kind, facts)
    parser.classes = {"model": schema.class_of(usual), "data": schema.class_of(data)}
    parser.set_defaults({"model": {"class_path": usual}})
    if kind.trains and (monitor := getattr(schema.class_of(usual), "monitor", None)):
        parser.set_defaults({"checkpoint.monitor": monitor})
    for of, (class_path, arguments) in known.items():
        own = {name: value for name, value in arguments.items() if of == "data" or name not in facts}
        parser.set_defaults({of: {"class_path": class_path, "init_args": own}})
    return parser


def _no_base(class_path: str, base: type) -> type:
    """The class of a model or of data.

    Raises:
        UserError: If it is Lightning's own, which learns and holds nothing.
    """
    found = class_named(class_path, base)
    if found is base:
        raise UserError(
            WHICH_DATA if base is PARTS["data"][1] else f"`model` {base.__name__}: name a class of that kind"
        )
    return found


def _batches(layers: Iterable[Layer]) -> dict[str, Any]:
    given = {name: last_given(layers, "trainer", name) for name in BATCHES}
    return {name: value for name, value in given.items() if value is not None}


def _without_training(layer: Layer) -> Layer:
    """The layer; of a file, such as that of an experiment, without the fields that only a training has."""
    if layer.file is None:
        return layer
    return layer._replace(values={name: value for name, value in layer.values.items() if name not in OF_TRAINING})


def _with_modes_dropped(layers: Sequence[Layer]) -> list[Layer]:
    """The layers, those before one that monitors another metric without the mode of their own."""
    kept: list[Layer] = []
    for layer in layers:
        monitor, mode = (last_given([layer], "checkpoint", name) for name in ("monitor", "mode"))
        if monitor is not None and mode is None and monitor != last_given(kept, "checkpoint", "monitor"):
            values = {"checkpoint": {"mode": None}} if last_given(kept, "checkpoint", "mode") is not None else {}
            kept.append(Layer(values, is_noted=True))
        kept.append(layer)
    return kept


def _texts(config: object, name: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a configuration, each with its field, but notes and what is in the options of users' classes."""
    if isinstance(config, str):
        yield name, config
    elif isinstance(config, list):
        for element in config:
            yield from _texts(element, name)
    elif isinstance(config, dict):
        theirs = not str(config.get("class_path", schema.OURS)).startswith((schema.OURS, schema.LIGHTNING_FINDERS))
        for key, value in config.items():
            if key != "note" and not (theirs and key == "init_args"):
                yield from _texts(value, name if key == "init_args" else f"{name}.{key}".lstrip("."))
