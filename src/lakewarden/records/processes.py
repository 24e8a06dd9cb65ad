"""Whether a process is still the one that was meant: a pid alone is used again."""

from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def started(pid: int) -> str | None:
    """When a process of this machine began, as a word that no other process with its pid has;
    None where there is no such process (or only its remains, not yet collected).

    On Linux the kernel's own ticks since boot: a time of day moves when the clock is set."""
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        if _BOOT_ID.exists():
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            ticks = stat.rpartition(")")[2].split()[19]  # field 22, starttime: proc_pid_stat(5)
            return f"{_boot_id()}/{ticks}"
        return f"{process.create_time():.2f}"
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return None


def is_running(pid: int, since: str) -> bool:
    """Whether the process that began then still runs."""
    return started(pid) == since


def is_of_this_boot(since: str) -> bool:
    """Whether a process that began then may have left others behind: none outlives a boot, and
    its pid may by now be the session of a stranger."""
    return not _BOOT_ID.exists() or since.startswith(f"{_boot_id()}/")


def _boot_id() -> str:
    return _BOOT_ID.read_text(encoding="ascii").strip()
