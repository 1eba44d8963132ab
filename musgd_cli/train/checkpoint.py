"""The only door for a ``.pt``, and for a model YAML: neither may run code of whoever wrote it.

A checkpoint is a pickle, and unpickling can call anything. `load_weights` lets torch's restricted
unpickler build the layers and plain values of a YOLO detection model, and nothing else. A model
YAML's ``activation:``, also the one inside a checkpoint, is an expression that Ultralytics may
``eval``; only the activations listed here pass.
"""

from __future__ import annotations

import importlib
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from musgd_cli.errors import MusgdError, UsageError
from musgd_cli.storage import whole_file
from musgd_cli.train import sandbox

if TYPE_CHECKING:
    from torch import nn

# A name in one of these is allowed when it is a class of layers defined there.
_LAYERS = re.compile(r"(torch\.nn\.modules|ultralytics\.nn\.modules)\.\w+|ultralytics\.nn\.tasks")
# Loss objects, which older Ultralytics left in the model. Plain classes without a __reduce__.
_LOSSES = ("ultralytics.utils.loss", "ultralytics.utils.tal")

ACTIVATIONS = frozenset(
    f"{prefix}nn.{activation}"
    for prefix in ("", "torch.")
    for activation in (
        *("ELU()", "GELU()", "Hardswish()", "Identity()", "LeakyReLU()", "LeakyReLU(0.1)"),
        *("Mish()", "PReLU()", "ReLU()", "ReLU6()", "SELU()", "SiLU()", "SiLU(inplace=True)"),
    )
)
"""What a model YAML may say under ``activation:``, letter by letter."""

_TRUST = "add --trust only if you trust whoever made the file: it then may run any code"


def load_weights(path: str | Path, trust: bool = False) -> nn.Module:
    """Load a detection model from a checkpoint in Ultralytics' format.

    Args:
        path: The ``.pt``. Nothing is downloaded, whatever its name.
        trust: Unpickle it without restriction: it then may run any code.

    Returns:
        The model, the EMA where the checkpoint holds one: float32, on the CPU, in training mode,
        every parameter trainable.

    Raises:
        UsageError: The file is missing, is no such checkpoint, or asks for more than a YOLO
            detection model needs.
    """
    path = Path(path)
    require_archive(path)
    sandbox.prepare()
    content = _unpickle(path, trust)
    model = content.get("ema") or content.get("model") if isinstance(content, dict) else content
    loaded: nn.Module = _detection_model(model, path).float().train().requires_grad_(True)
    return loaded


def require_archive(path: Path) -> None:
    """Make sure that there is a file to load weights from, without loading it, or torch.

    Raises:
        UsageError: It is missing, or no archive as torch writes it.
    """
    if not path.exists():
        raise UsageError(
            f"weights {path} do not exist, and nothing is downloaded",
            "check the path, or train from scratch with --model yolo26n.yaml",
        )
    try:
        with path.open("rb"):
            names = zipfile.ZipFile(path).namelist()
    except (OSError, zipfile.BadZipFile) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise UsageError(
            f"{path} cannot be read as weights: {reason or 'it is cut short or no checkpoint'}",
            "give a .pt that Ultralytics or musgd wrote, or fetch it again",
        ) from error
    if any(name.endswith("constants.pkl") for name in names):
        raise UsageError(
            f"{path} is a TorchScript export, not weights", "give the .pt it was exported from"
        )


def _unpickle(path: Path, trust: bool) -> Any:
    import torch

    try:
        if trust:
            return torch.load(path, map_location="cpu", weights_only=False)
        wanted = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        allowed = {name: found for name in wanted if (found := _allowed(name)) is not None}
        if refused := sorted(set(wanted) - set(allowed)):
            raise UsageError(
                f"{path} is not loaded: it asks for {', '.join(refused)}, "
                "which no YOLO detection model needs",
                _TRUST,
            )
        entries: list[Any] = [(found, name) for name, found in allowed.items()]
        if "numpy.dtype" in allowed:
            import numpy as np

            # The scan does not see it, as numpy makes it on the fly.
            entries.append(type(np.dtype(np.float64)))
        with torch.serialization.safe_globals(entries):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MusgdError:
        raise
    except pickle.UnpicklingError as error:
        # What the scan cannot see, the unpickler itself refuses.
        raise UsageError(
            f"{path} is not loaded: {first_line(error)}",
            _TRUST if not trust else "give a .pt that Ultralytics or musgd wrote",
        ) from error
    except Exception as error:  # a damaged pickle can fail anywhere in the unpickler
        raise UsageError(
            f"{path} cannot be read as weights: {first_line(error)}",
            "give a .pt that Ultralytics or musgd wrote, or fetch it again",
        ) from error


def first_line(error: Exception) -> str:
    """Return the first sentence of what torch or a parser says; they tend to lecture."""
    text = str(error).strip() or type(error).__name__
    return re.split(r"\.\s|\n", text, maxsplit=1)[0]


def _allowed(name: str) -> Any | None:
    """Return what a pickle's global ``name`` may stand for, or ``None``."""
    if name in _PLAIN:
        module, attribute = _PLAIN[name]
        return getattr(importlib.import_module(module), attribute, None)
    module, _, attribute = name.rpartition(".")
    is_loss = module in _LOSSES
    if not is_loss and not _LAYERS.fullmatch(module):
        return None
    from torch import nn

    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    if not isinstance(found, type) or found.__module__ != module:
        return None
    return found if is_loss or issubclass(found, nn.Module) else None


# Values that are no layers: the arguments of the training run, and metrics kept as numpy scalars.
_PLAIN = {
    "ultralytics.utils.IterableSimpleNamespace": ("ultralytics.utils", "IterableSimpleNamespace"),
    "pathlib.PosixPath": ("pathlib", "PurePosixPath"),
    "pathlib.WindowsPath": ("pathlib", "PureWindowsPath"),
    "pathlib._local.PosixPath": ("pathlib", "PurePosixPath"),
    "pathlib._local.WindowsPath": ("pathlib", "PureWindowsPath"),
    "numpy.dtype": ("numpy", "dtype"),
    "numpy.core.multiarray.scalar": ("numpy._core.multiarray", "scalar"),
    "numpy._core.multiarray.scalar": ("numpy._core.multiarray", "scalar"),
}


def _detection_model(model: Any, path: Path) -> Any:
    from torch.nn import Module
    from ultralytics.nn.modules import Detect
    from ultralytics.nn.tasks import DetectionModel

    kind: Any = type(model)
    if not issubclass(kind, Module):
        raise UsageError(
            f"{path} holds no model", "give weights that were trained by Ultralytics or musgd"
        )
    # Segmentation, pose and boxes at an angle are subclasses, of the model and of its head.
    if kind is not DetectionModel or type(model.model[-1]) is not Detect:
        raise UsageError(
            f"{path} is a {kind.__name__}, not a detection model",
            "give detection weights, such as those of yolo26n",
        )
    if model.is_fused():
        raise UsageError(
            f"the layers of {path} are fused for inference, which cannot be undone",
            "give the weights as they were trained",
        )
    _check_activation(model.yaml, path)
    return model


def _check_activation(config: Mapping[str, Any], source: Path) -> None:
    activation = config.get("activation")
    if activation is not None and activation not in ACTIVATIONS:
        raise UsageError(
            f"{source}: activation: {activation!r} is not one we know, and it is never evaluated",
            f"use one of {', '.join(sorted(a for a in ACTIVATIONS if a.startswith('nn.')))}",
        )


def is_pruned(weights: nn.Module, built: nn.Module) -> bool:
    """Tell whether layers of ``weights`` have other widths than those of ``built``.

    Args:
        weights: A detection model, as `load_weights` returns it.
        built: What its YAML builds, perhaps for another number of classes, with these weights.
    """
    known: Any = weights
    head = known.model[-1]
    branches = (head.cv3, getattr(head, "one2one_cv3", None) or ())
    by_class = {id(value) for cv3 in branches for level in cv3 for value in level[-1].parameters()}
    theirs = dict(built.named_parameters())
    return any(
        value.shape != theirs[name].shape
        for name, value in weights.named_parameters()
        if name in theirs and id(value) not in by_class
    )


def untrained(name: str) -> nn.Module:
    """Build what a model YAML says, with the weights that its layers start from.

    Args:
        name: As in `read_model_config`, which says what it raises.
    """
    config = read_model_config(name)
    from ultralytics.nn.tasks import DetectionModel

    model: nn.Module = DetectionModel(config, verbose=False)
    return model


def read_model_config(name: str) -> dict[str, Any]:
    """Read a model YAML.

    Args:
        name: A file, or the name of a model that Ultralytics ships, such as ``yolo26n.yaml``.

    Returns:
        What Ultralytics' ``DetectionModel`` takes, the scale letter of the name included.

    Raises:
        UsageError: There is no such model, it is not a detection model's, or its ``activation:``
            is not one of `ACTIVATIONS`.
    """
    import yaml

    sandbox.prepare()
    from ultralytics.nn.tasks import guess_model_scale

    file = Path(name) if Path(name).is_file() else _shipped(name)
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(
            f"{file} cannot be read as a model YAML: {first_line(error)}",
            "give a model YAML such as yolo26n.yaml",
        ) from error
    head = config.get("head") if isinstance(config, dict) else None
    if not head or "backbone" not in config or "nc" not in config:
        raise UsageError(
            f"{file} is no model YAML: it needs nc:, backbone: and head:",
            "give a model YAML such as yolo26n.yaml",
        )
    if not isinstance(head[-1], list) or head[-1][2:3] != ["Detect"]:
        raise UsageError(
            f"{file} does not end in Detect, so it is no detection model",
            "give a detection model, such as yolo26n.yaml",
        )
    _check_activation(config, file)
    return {**config, "scale": guess_model_scale(name), "yaml_file": Path(name).name}


def _shipped(name: str) -> Path:
    """Return the YAML that Ultralytics ships: ``yolo26n.yaml`` is a scale of ``yolo26.yaml``."""
    from ultralytics.utils import ROOT

    by_name: dict[str, Path] = {
        file.name: file for file in sorted((ROOT / "cfg" / "models").rglob("*.yaml"))
    }
    without_scale = re.sub(r"(\d+)[nslmx](.*)$", r"\1\2", name)
    file = by_name.get(name) or by_name.get(without_scale)
    if file is None:
        raise UsageError(
            f"model {name} does not exist, neither as a file nor in Ultralytics",
            "check the path, or use yolo26n.yaml",
        )
    return file


def write_weights(path: Path, model: nn.Module, details: Mapping[str, Any]) -> None:
    """Write ``model`` as Ultralytics writes finished weights, whole or not at all.

    Args:
        path: The ``.pt`` to write.
        model: An Ultralytics model. It is copied, and stored in half precision.
        details: More entries of the checkpoint: ``train_args``, ``train_metrics``, …

    Raises:
        MusgdError: The file could not be written.
    """
    import datetime
    from copy import deepcopy

    import torch
    import ultralytics

    stored: Any = deepcopy(model).half().cpu().to(memory_format=torch.contiguous_format)
    stored.requires_grad_(False)
    stored.criterion = None
    for module in stored.modules():
        module._forward_hooks.clear()  # a teacher's, which would be pickled
    stored.args = dict(details.get("train_args", {}))
    for value in stored.state_dict().values():
        if value.is_floating_point():
            torch.nan_to_num_(value)  # beyond half precision's range
    checkpoint = {
        "epoch": -1,  # Ultralytics' mark of weights that are finished
        "model": stored,
        "ema": None,
        "optimizer": None,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "version": ultralytics.__version__,
        "license": "AGPL-3.0 (https://ultralytics.com/license)",
        **details,
    }
    save(checkpoint, path)


def save(content: Any, path: Path) -> None:
    """`torch.save`, whole or not at all.

    Raises:
        MusgdError: The file could not be written.
    """
    import io

    import torch

    # torch's own file writer turns a full disk into a RuntimeError about an "unexpected pos".
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with whole_file(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
