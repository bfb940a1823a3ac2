import asyncio
import threading

from app.services.process.idle_memory import MIN_GROWTH_BYTES, IdleMemory


class Process:
    """A process whose size a test sets; trimming gives back what it has grown by."""

    def __init__(self) -> None:
        self.size = 10 * MIN_GROWTH_BYTES
        self.least = self.size
        self.trimmed = threading.Event()
        self.looked = threading.Event()

    def resident(self) -> int:
        self.looked.set()
        return self.size

    def trim(self) -> None:
        self.size = self.least
        self.trimmed.set()


def _after_work(process: Process, growth: int, *, calls: int = 1) -> bool:
    """Let work end after which the process has grown; return whether its memory was trimmed."""
    memory = IdleMemory(resident=process.resident, trim=process.trim, idle_s=0.01)
    process.looked.clear()
    process.size += growth

    async def work() -> None:
        for _ in range(calls):
            memory.note_work()
        assert await asyncio.to_thread(process.looked.wait, 10)

    asyncio.run(work())
    return process.trimmed.is_set()


def test_memory_is_returned_once_the_work_is_over() -> None:
    assert _after_work(Process(), 2 * MIN_GROWTH_BYTES, calls=3)


def test_a_little_growth_stays_for_the_next_forward() -> None:
    assert not _after_work(Process(), MIN_GROWTH_BYTES // 2)


def test_nothing_happens_after_close() -> None:
    process = Process()
    memory = IdleMemory(resident=process.resident, trim=process.trim, idle_s=0.0)
    process.looked.clear()

    async def work() -> None:
        memory.note_work()
        memory.close()
        await asyncio.sleep(0.05)

    asyncio.run(work())

    assert not process.looked.is_set()
