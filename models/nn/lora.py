"""LoRA on a language model, by peft, in place: the model keeps its own interface.

The paper's setting is rank 8, alpha 16, on `in_proj` of Mamba and on `q_proj` and `v_proj` of LLaMA. Files are peft's
own (`adapter_config.json`, `adapter_model.safetensors`), with the names that transformers' models give their layers,
so that peft reads them beside a transformers model and the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from models.nn.checkpoint import load_strictly, read_state_dict
from models.nn.language_model import LanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
# What peft writes before the name of a module: its own two wrappers.
PEFT_PREFIX = "base_model.model."
# Read as a weight by the mixer, so that an adapter on it would never take part.
NOT_CALLED = ("conv1d",)


def add_lora(
    lm: LanguageModel, rank: int = 8, alpha: int = 16, dropout: float = 0.0, targets: Sequence[str] | None = None
) -> None:
    """Freezes the model and puts trainable low-rank updates on its target projections, in float32 or wider.

    Args:
        targets: names of linear layers, such as `x_proj`; None takes the model's own `lora_targets`.

    Raises:
        ValueError: the model has a LoRA already, no layer has such a name, or an adapter there would have no effect.
    """
    from peft import LoraConfig

    names = list(targets or lm.lora_targets)
    _inject(lm, LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, bias="none"))


def save_lora(lm: LanguageModel, folder: Path) -> None:
    """Writes the LoRA in peft's format; the folder is made.

    Raises:
        ValueError: the model has none.
    """
    from safetensors.torch import save_file

    config = _config_of(lm, "to save")
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(str(folder))
    tensors = {name: parameter.detach().contiguous() for name, parameter in _adapter(lm).items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load_lora(lm: LanguageModel, folder: Path, is_trainable: bool = False) -> None:
    """Puts a saved LoRA on the model, or its weights into the one that the model has; all of them or none.

    Raises:
        ValueError: files are missing or damaged, are no LoRA, do not fit the model, or are unlike the LoRA that it has.
    """
    config = _read_config(folder)
    config.inference_mode = False
    tensors = read_state_dict(folder / WEIGHTS_FILE)
    own: Any = getattr(lm.published, "peft_config", None)
    if own is None:
        _inject(lm, config)
    elif _settings(own["default"]) != _settings(config):
        raise ValueError(f"The LoRA in {folder} has {_settings(config)}, and the model's {_settings(own['default'])}")
    adapter = _adapter(lm)
    holder = nn.ParameterList(adapter.values())
    load_strictly(holder, tensors, f"this model's LoRA ({folder})", {str(i): name for i, name in enumerate(adapter)})
    for parameter in adapter.values():
        parameter.requires_grad_(is_trainable)


def set_lora_dropout(lm: LanguageModel, rate: float) -> None:
    """What the LoRA hears is dropped at `rate` in training; its saved config says so.

    Raises:
        ValueError: the model has none.
    """
    _config_of(lm, "to drop inputs of").lora_dropout = rate
    for module in lm.published.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            dropouts["default"] = nn.Dropout(rate) if rate else nn.Identity()


def lora_parameters(lm: LanguageModel) -> dict[str, nn.Parameter]:
    """The LoRA's weights by the names that peft gives them in a file; empty without one."""
    return _adapter(lm)


def _config_of(lm: LanguageModel, wanted: str) -> LoraConfig:
    """The settings of the LoRA that the model has.

    Raises:
        ValueError: it has none; `wanted` says in the message what for.
    """
    configs: Any = getattr(lm.published, "peft_config", None)
    if configs is None:
        raise ValueError(f"There is no LoRA {wanted}: the model has none.")
    config: LoraConfig = configs["default"]
    return config


def _inject(lm: LanguageModel, config: LoraConfig) -> None:
    from peft import inject_adapter_in_model

    module = lm.published
    if hasattr(module, "peft_config"):
        raise ValueError("The model has a LoRA already.")
    idle = [name for name in _listed(config.target_modules) if name.rpartition(".")[2] in NOT_CALLED]
    if idle:
        raise ValueError(f"A LoRA on {', '.join(idle)} would have no effect: its weight is read, not called.")
    lm.requires_grad_(False)
    try:
        inject_adapter_in_model(config, module)
    except ValueError as error:
        raise ValueError(f"No LoRA could be put on {_listed(config.target_modules)}: {error}") from error
    # In half precision the small steps of training would be lost.
    for parameter in _adapter(lm).values():
        if parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def _settings(config: LoraConfig) -> str:
    """What two LoRAs must agree in to take each other's weights; shapes are compared anyway."""
    return f"rank {config.r}, alpha {config.lora_alpha}, targets {', '.join(_listed(config.target_modules))}"


def _listed(targets: Any) -> list[str]:
    return [targets] if isinstance(targets, str) else sorted(targets or [])


def _adapter(lm: LanguageModel) -> dict[str, nn.Parameter]:
    parameters = lm.published.named_parameters()
    return {PEFT_PREFIX + name.replace(".default.", "."): p for name, p in parameters if ".lora_" in name}


def _read_config(folder: Path) -> LoraConfig:
    from peft import LoraConfig, PeftConfig

    path = folder / CONFIG_FILE
    if not path.is_file():  # peft would look for it on the hub
        raise ValueError(f"{folder} holds no LoRA: there is no {CONFIG_FILE}")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no adapter's config: {error}") from error
    if not isinstance(config, LoraConfig):
        raise ValueError(f"{path} describes an adapter of type {config.peft_type}, not a LoRA")
    return config
