"""What a request under way is told of its images' steps and of its turn; types alone, which import nothing."""

from collections.abc import Callable
from typing import Protocol


class OnStep(Protocol):
    """Called on the event loop after a step of an image, and with 0 steps done once the engine has taken the image.

    Takes the image's index, its steps done, its steps in all, and a PNG of what the step predicts where one is due. A
    step with a PNG may be reported after the step behind it.
    """

    def __call__(self, image: int, done: int, steps: int, preview: bytes | None = None, /) -> object: ...  # noqa: D102


# Called on the event loop with the number of requests that go before this one's first image, while that waits.
OnPosition = Callable[[int], object]
