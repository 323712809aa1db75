"""Published protocols by name: what a run must be asked, and how, for its score to stand beside published ones.

`ltu` is that of Gong et al. 2023 (arXiv 2305.10790; repository YuanGongND/ltu, src/ltu/inference_batch.py and
src/ltu/eval): one question for all eight classification sets and one for each captioning set, misspelling included; the
first 10.24 s of a clip; sampling at temperature 0.1 with top-p 0.95, top-k 500 and a repetition penalty of 1.1; the
text mapped to labels by text-embedding-ada-002, of another part of the answer on some sets; DCASE by lines of its list;
five captions sampled for each captioning clip, each held against all five references, and the mean over them.

What the protocol does not fix is the user's: the seed, the number type (LTU's own is float16), and another scorer,
whose name stands beside every number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from harness.config import RunConfig
from harness.contracts import OptionValue
from harness.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Protocol:
    """What a protocol fixes. `scorers` names each task that it is for, with the scorer of its labels; "" for captions.

    `prompt` is the name that tasks give its question; `model_options` are those that the model must take.
    """

    name: str
    prompt: str
    model_options: Mapping[str, OptionValue]
    scorers: Mapping[str, str]
    task_options: Mapping[str, Mapping[str, OptionValue]] = field(default_factory=dict)


_COLON = "ltu"
_AUDIO_CAPTION = "ltu[cut=audio_caption]"
LTU = Protocol(
    name="ltu",
    prompt="ltu",
    model_options={"decoding": "ltu", "length_policy": "first_10_24s"},
    scorers={
        "esc50": _COLON,
        "dcase2017": _COLON,
        "vocalsound": _COLON,
        "tut2017": _COLON,
        "beijing_opera": _COLON,
        "vggsound": _AUDIO_CAPTION,
        "fsd50k": _AUDIO_CAPTION,
        "audioset": _AUDIO_CAPTION,
        "audiocaps": "",
        "clotho": "",
    },
    task_options={
        "dcase2017": {"convention": "row"},
        "audiocaps": {"captions": 5},
        "clotho": {"captions": 5},
    },
)
PROTOCOLS = {LTU.name: LTU}


def follow(config: RunConfig) -> RunConfig:
    """The command with what its protocol fixes; as it is where it names none.

    Raises:
        UnknownNameError: there is no such protocol.
        UsageError: the protocol is not for the task, or the command says something else than it.
    """
    if config.protocol is None:
        return config
    protocol = PROTOCOLS.get(config.protocol)
    if protocol is None:
        raise UnknownNameError("protocol", config.protocol, PROTOCOLS)
    if config.task not in protocol.scorers:
        raise UsageError(
            f"The protocol '{protocol.name}' is for {', '.join(protocol.scorers)}; '{config.task}' is none of them."
        )
    if config.prompt not in (None, protocol.prompt):
        raise UsageError(f"--protocol {protocol.name} asks the question '{protocol.prompt}', not '{config.prompt}'.")
    scorer = protocol.scorers[config.task]
    return replace(
        config,
        prompt=protocol.prompt,
        model_options=_merged(protocol, "-m", protocol.model_options, config.model_options),
        task_options=_merged(protocol, "-t", protocol.task_options.get(config.task, {}), config.task_options),
        scorers=config.scorers or ((scorer,) if scorer else ()),
    )


def _merged(
    protocol: Protocol, flag: str, fixed: Mapping[str, OptionValue], given: Mapping[str, OptionValue]
) -> dict[str, OptionValue]:
    """The given options with the fixed ones.

    Raises:
        UsageError: one was given another value.
    """
    for name, value in fixed.items():
        if name in given and str(given[name]) != str(value):
            raise UsageError(f"--protocol {protocol.name} sets {flag} {name}={value}, not {given[name]}.")
    return {**given, **fixed}
