"""Whether the local stack answers, and whether this machine has the programs that it needs."""

import shutil

from lakewarden.checkup import Answer
from lakewarden.local import cloud, nessie, weed
from lakewarden.local.stack import StackConfig


def check_stack(config: StackConfig) -> Answer:
    """Every part's own answer. Raises LocalStackMissing."""
    program = weed.find()
    found = cloud.status(config)
    wanted = [part for part in found.parts if part.wanted]
    up = [part.name for part in wanted if part.up]
    down = tuple(f"{part.name} is down: {part.detail}" for part in wanted if not part.up)
    if not found.parts:
        down = ("it was never started here",)
    return Answer(
        f"{program.name}: {', '.join(up)}" if up else "–",
        missing=down,
        hint="lakewarden local up" if down else None,
        again=bool(down),
    )


def check_nessie_programs() -> Answer:
    """What a Nessie on this machine runs on. Nothing is fetched. Raises JavaMissing."""
    java = nessie.find_java()
    told = f"Java {java.version}"
    if (nessie.cache() / nessie.JAR).is_file():
        return Answer(f"{told}, Nessie's jar")
    if shutil.which("mvn"):
        return Answer(f"{told}, mvn, which fetches Nessie's jar when it is started")
    return Answer(
        told,
        missing=("neither Nessie's jar is here, nor mvn, which would fetch it",),
        hint="Install Maven.",
    )
