"""Configs: Python files that compose real classes, read into one typed record.

A node `dict(type=TheClass, a=1)` stands for the object `TheClass(a=1)`. A node
`dict(factory=TheClass, a=1)` stands for `TheClass` with `a` set and the rest still open: a part
whose other arguments follow from the parts around it (see `detector.models.detectors`).
Files are mmengine's pure-Python configs, so `with read_base():` shares parts between them.
"""

from __future__ import annotations

import ast
import inspect
import pprint
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from detector.errors import InputError


@dataclass(frozen=True)
class Config:
    """Everything that a config file says."""

    path: Path
    """The file that was read."""
    classes: tuple[str, ...]
    """Names of the classes; labels index into it."""
    grid: dict
    """Node of the `VoxelGrid`."""
    model: dict
    """Node of the detector."""
    train_dataset: dict
    """Node of the data set that training reads."""
    val_dataset: dict
    """Node of the data set that evaluation reads."""
    train_transforms: list
    """Nodes of the augmentations, in order: callables (sample, rng) -> sample."""
    cache_frames: bool
    """Keep frames in memory once read; for small data sets."""
    epochs: int
    """Passes over the training frames."""
    batch_size: int
    """Frames a step, on each process."""
    workers: int
    """Processes that read data beside each training process; 0 reads in the process itself."""
    optimizer: dict
    """Node of the optimizer, without its parameters; `lr` is the schedule's peak."""
    schedule: dict
    """Node of the function that makes the schedule (see `detector.training.schedule`)."""
    frozen: tuple[str, ...]
    """Parts of the detector, by their names in it such as "backbone", that keep their weights and
    the statistics of their norms; for fine-tuning."""
    clip_norm: float
    """Gradients are scaled down to this norm."""
    accumulate: int
    """Steps whose gradients are added up before an update."""
    precision: str
    """What products are computed in: float32, bfloat16, float16, or auto, which is bfloat16 where
    the device has instructions for it and float32 elsewhere."""
    fused_backbone: bool
    """On a GPU, in float16 or bfloat16: train the sparse backbone's layers as one step of autograd
    in place of one by one, where that can be done; the start of a run says so if it can't."""
    cuda_graph: bool
    """On one GPU, without `accumulate`: replay what comes behind the sparse backbone, losses and
    gradients included, as CUDA graphs."""
    sync_norm: bool
    """Whether norms take their statistics over the frames of all processes; for few frames on
    each."""
    skip_bad_frames: bool
    """Let the next good frame take the place of a training frame that can't be read, and count
    them, instead of stopping."""
    ema: float
    """Momentum of the exponential moving average of weights; 0 keeps none."""
    seed: int
    """Of weights, order and augmentation."""
    evaluate_every: int
    """Epochs between evaluations; 0 evaluates at the end alone."""
    best_metric: str
    """Which of the evaluation's scalars chooses `best.pth`; larger is better."""
    keep_checkpoints: int
    """How many epochs' checkpoints are kept beside `latest.pth` and `best.pth`."""

    def text(self) -> str:
        """The config as Python-like text, classes by their dotted names."""
        lines = []
        for item in fields(self):
            if item.name != "path":
                value = pprint.pformat(_named(getattr(self, item.name)), width=96)
                lines.append(f"{item.name} = {value}")
        return "\n".join(lines) + "\n"


SETTINGS = tuple(f.name for f in fields(Config) if f.name != "path")


def load_config(path: str | Path, options: Sequence[str] = ()) -> Config:
    """Reads a config file and changes values by `options`, each like `model.head.nms_iou=0.3`.

    Raises:
        InputError: a missing or broken file, an unknown or missing key, a value of another type.
    """
    path = Path(path)
    values = _read_file(path)
    _check_settings(values, path)
    for option in options:
        values = _with_option(values, option)
    values["classes"] = tuple(values["classes"])
    config = Config(path=path, **values)
    for name in ("grid", "model", "train_dataset", "val_dataset", "train_transforms", "schedule"):
        _check_arguments(getattr(config, name), name, path)
    _check_values(config)
    return config


def build(node: Any) -> Any:
    """The object that a node stands for, and plain values as they are; nested nodes first.

    Raises:
        InputError: arguments that a class rejects with ValueError or TypeError.
    """
    if isinstance(node, Mapping):
        values = {k: build(v) for k, v in node.items() if k not in ("type", "factory")}
        if "factory" in node:
            return partial(node["factory"], **values)
        if "type" not in node:
            return values
        try:
            return node["type"](**values)
        except InputError:
            raise
        except (ValueError, TypeError) as error:
            raise InputError(f"config, {node['type'].__name__}: {error}") from error
    if isinstance(node, (list, tuple)):
        return type(node)(build(item) for item in node)
    return node


def build_model(config: Config):
    """The detector with fresh weights."""
    return build({**config.model, "classes": config.classes, "grid": config.grid})


def with_options(config: Config, **changes) -> Config:
    """A copy with some top-level settings replaced."""
    return replace(config, **changes)


def _read_file(path: Path) -> dict[str, Any]:
    from mmengine.config import Config as File
    from mmengine.config.lazy import LazyAttr, LazyObject
    from mmengine.config.utils import ConfigParsingError

    if not path.is_file():
        raise InputError(
            f"{path}: there is no such config file; those that come with the project are in "
            f"configs/"
        )
    if path.suffix != ".py":
        raise InputError(f"{path}: a config is a Python file, its name must end in .py")
    try:
        tree = File.fromfile(str(path), lazy_import=True)._to_lazy_dict(keep_imported=True)
    except (ConfigParsingError, SyntaxError, NameError, TypeError, KeyError, ValueError) as error:
        raise InputError(f"{path}: the config cannot be read: {error}") from error

    def resolved(value):
        if isinstance(value, (LazyObject, LazyAttr)):
            try:
                return value.build()
            except (ImportError, AttributeError) as error:
                raise InputError(f"{path}: {error}") from error
        if isinstance(value, dict):
            return {k: resolved(v) for k, v in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(resolved(v) for v in value)
        return value

    # Imports and functions of the file are no settings.
    return {
        k: resolved(v)
        for k, v in tree.items()
        if not isinstance(v, (LazyObject, LazyAttr)) and not callable(v)
    }


def _check_settings(values: dict[str, Any], path: Path) -> None:
    # A name with a leading underscore is the file's own helper.
    for name in [n for n in values if n.startswith("_")]:
        del values[name]
    unknown = [name for name in values if name not in SETTINGS]
    if unknown:
        raise InputError(
            f"{path}: unknown setting {', '.join(map(repr, unknown))}; known are "
            f"{', '.join(sorted(SETTINGS))}"
        )
    missing = [name for name in SETTINGS if name not in values]
    if missing:
        raise InputError(
            f"{path}: the setting {', '.join(map(repr, missing))} is missing; take the usual ones "
            f"from configs/_base_ with read_base()"
        )


def _parameters(target: Any) -> tuple[set[str], bool]:
    """Names of the keyword arguments of a class or function, and whether it takes any other."""
    names: set[str] = set()
    open_ended = False
    # A class that passes **options on accepts what the class above it does.
    for function in inspect.getmro(target) if inspect.isclass(target) else [target]:
        if inspect.isclass(target):
            if "__init__" not in vars(function):
                continue
            signature = inspect.signature(function.__init__)
        else:
            signature = inspect.signature(function)
        kinds = {p.kind for p in signature.parameters.values()}
        names |= {
            p.name
            for p in signature.parameters.values()
            if p.name != "self" and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        open_ended = inspect.Parameter.VAR_KEYWORD in kinds
        if not open_ended:
            break
    return names, open_ended


def _check_arguments(node: Any, where: str, path: Path) -> None:
    """Every node's arguments must be ones that its class has."""
    if isinstance(node, (list, tuple)):
        for index, item in enumerate(node):
            _check_arguments(item, f"{where}.{index}", path)
    if not isinstance(node, Mapping):
        return
    target = node.get("type", node.get("factory"))
    if target is not None:
        if not callable(target):
            raise InputError(f"{path}: {where}: {target!r} is not a class or function")
        known, open_ended = _parameters(target)
        unknown = [k for k in node if k not in ("type", "factory") and k not in known]
        if unknown and not open_ended:
            raise InputError(
                f"{path}: {where} ({target.__name__}) has no argument "
                f"{', '.join(map(repr, unknown))}; known are {', '.join(sorted(known))}"
            )
    for key, value in node.items():
        _check_arguments(value, f"{where}.{key}", path)


def _check_values(config: Config) -> None:
    rules = [
        ("epochs", config.epochs >= 1, "1 or more"),
        ("batch_size", config.batch_size >= 1, "1 or more"),
        ("workers", config.workers >= 0, "0 or more"),
        ("accumulate", config.accumulate >= 1, "1 or more"),
        ("clip_norm", config.clip_norm > 0, "positive"),
        ("ema", 0 <= config.ema < 1, "at least 0 and below 1"),
        ("evaluate_every", config.evaluate_every >= 0, "0 or more"),
        ("keep_checkpoints", config.keep_checkpoints >= 1, "1 or more"),
        ("precision", config.precision in ("float32", "bfloat16", "float16", "auto"),
         "float32, bfloat16, float16 or auto"),
        ("classes", len(config.classes) > 0 and len(set(config.classes)) == len(config.classes),
         "a tuple of different names"),
    ]  # fmt: skip
    for name, holds, wanted in rules:
        if not holds:
            raise InputError(
                f"{config.path}: {name} is {getattr(config, name)!r}, it must be {wanted}"
            )


def _with_option(values: dict[str, Any], option: str) -> dict[str, Any]:
    """A copy of the tree with one value changed."""
    name, equals, text = option.partition("=")
    if not equals or not name:
        raise InputError(f"--cfg-options {option!r}: write it as name=value, such as epochs=20")
    try:
        new = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        new = text
    return _changed(values, name.split("."), new, name)


def _changed(node: Any, steps: list[str], new: Any, name: str) -> Any:
    step, rest = steps[0], steps[1:]
    if isinstance(node, (list, tuple)):
        if not step.lstrip("-").isdigit() or not -len(node) <= int(step) < len(node):
            raise InputError(
                f"--cfg-options {name}: {step!r} is no index of a list of {len(node)} entries"
            )
        items = list(node)
        key = int(step)
        items[key] = _changed(items[key], rest, new, name) if rest else _fitting(
            items[key], new, name)  # fmt: skip
        return type(node)(items)
    if not isinstance(node, Mapping):
        raise InputError(
            f"--cfg-options {name}: there is nothing below {node!r}; leave {step!r} out"
        )
    target = node.get("type", node.get("factory"))
    known = {k for k in node if k not in ("type", "factory")}
    if target is not None:
        known |= _parameters(target)[0]
    if step not in known:
        raise InputError(
            f"--cfg-options {name}: {step!r} is unknown here; known are {', '.join(sorted(known))}"
        )
    if rest and step not in node:
        raise InputError(f"--cfg-options {name}: {step!r} is not set in the config")
    if rest:
        return {**node, step: _changed(node[step], rest, new, name)}
    return {**node, step: _fitting(node[step], new, name) if step in node else new}


def _fitting(old: Any, new: Any, name: str) -> Any:
    """`new`, if it can stand where `old` stood; whole numbers may stand for fractions."""
    if old is None or new is None:
        return new
    if isinstance(old, bool) or isinstance(new, bool):
        fits = isinstance(old, bool) and isinstance(new, bool)
    elif isinstance(old, float):
        fits = isinstance(new, (int, float))
    elif isinstance(old, (list, tuple)):
        fits = isinstance(new, (list, tuple))
        new = type(old)(new) if fits else new
    else:
        fits = isinstance(new, type(old))
    if not fits:
        raise InputError(
            f"--cfg-options {name}: {new!r} is {type(new).__name__}, the config has "
            f"{type(old).__name__} there ({old!r})"
        )
    return new


def _named(value: Any) -> Any:
    """The tree with classes and functions replaced by their dotted names."""
    if isinstance(value, Mapping):
        return {k: _named(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_named(v) for v in value)
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
