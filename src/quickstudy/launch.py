"""The processes of a run, on one machine or several."""

from __future__ import annotations

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy

from quickstudy.core.errors import UserError


def launched(accelerator: str, devices: int, nodes: int, precision: str) -> Fabric:
    """The processes, started.

    Raises UserError for a device that is not there.
    """
    # float64 is our own doing: Fabric's would hand every loss back in float32, and round the gradients with it
    plain: Any = precision if precision == "bf16-mixed" else "32-true"
    ddp = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False) if devices * nodes > 1 else "auto"
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices, num_nodes=nodes, precision=plain, strategy=ddp)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"cannot train on {devices} x {accelerator!r}: {str(error).splitlines()[0]}") from None
    if precision == "64-true" and fabric.device.type == "mps":
        raise UserError("mps has no float64: use precision 32-true, or accelerator cpu.")
    fabric.launch()
    return fabric
