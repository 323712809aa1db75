"""The frozen language model's blocks spread over the processes: each holds a part, and fetches the rest to use a block.

torch's `fully_shard` (FSDP2) on the blocks that accelerate's FSDP settings name. What learns stays whole in every
process, 16 bytes a parameter with its gradient and its optimiser, so that checkpoints and steps are those of a
training without sharding: of the published models it is 42 to 93 million parameters beside 2.8 to 13 billion.

This is for GPUs. On a CPU a Mamba's compiled kernels hold on to weights that torch would free after their use, and
torch stops at once; without them, and with LLaMA, two processes on a CPU take the very steps of one (tests).
"""

from __future__ import annotations

import os
from typing import Any

from harness.errors import UsageError
from harness.processes import Processes


def is_asked_for() -> bool:
    """Whether `accelerate launch` was given settings of FSDP."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def shard_frozen_blocks(network: Any, processes: Processes) -> int:
    """Spread the blocks, and return how many there are. Every process must call every block as often as the others.

    Args:
        network: of its parameters those that do not require a gradient now are spread.
        processes: among whom.

    Raises:
        UsageError: the settings are of FSDP's first version, ask for what is not done here, or name no block.
    """
    from accelerate.utils import FullyShardedDataParallelPlugin
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UsageError("FSDP: the settings must say fsdp_version: 2")
    if os.environ.get("FSDP_OFFLOAD_PARAMS", "false").lower() == "true":
        raise UsageError("FSDP: fsdp_offload_params is not supported; leave it false")
    plugin = FullyShardedDataParallelPlugin()
    names = plugin.transformer_cls_names_to_wrap or []
    blocks = [module for module in network.modules() if type(module).__name__ in names]
    if not blocks:
        raise UsageError(f"FSDP: the network has no block {' or '.join(names) or 'that the settings name'}")
    mesh = init_device_mesh(processes.device.split(":")[0], (processes.count,))
    learning = {parameter for parameter in network.parameters() if parameter.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=bool(plugin.reshard_after_forward), ignored_params=learning)
    return len(blocks)
