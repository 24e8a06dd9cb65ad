"""Whether the local stack answers, and whether this machine has the programs that it needs."""

from lakewarden.checkup import Answer
from lakewarden.local import stack, weed
from lakewarden.local.stack import StackConfig


def check_stack(config: StackConfig) -> Answer:
    """Every part's own answer. Raises LocalStackMissing."""
    program = weed.find()
    found = stack.status(config)
    up = [part.name for part in found.parts if part.up]
    down = tuple(f"{part.name} is down: {part.detail}" for part in found.parts if not part.up)
    if not found.parts:
        down = ("it was never started here",)
    return Answer(
        f"{program.name}: {', '.join(up)}" if up else "–",
        missing=down,
        hint="lakewarden local up" if down else None,
        again=True,
    )
