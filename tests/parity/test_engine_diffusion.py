"""The whole engine over the real runner and the tiny pack: forwards and decodes counted by hooks, and pixels compared.

What happens "while a step runs" is done by a hook of the UNet, on the device thread: no sleeps, no chance.
"""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.diffusion.encoder import ImageToImage
from app.engine.diffusion.noise.schedulers import NOISE_SCHEDULERS
from app.engine.diffusion.runner import DiffusionRunner, GeneratedImage, cost_of, spec_of
from app.engine.engine import Engine
from app.engine.request import Priority
from app.errors import InferenceFailed
from app.image_spec import ImageSpec, PictureRef
from app.modelpacks.loading import DiffusionComponents, load_diffusion
from app.modelpacks.pack import ModelPack
from app.step_rows import SPACED_SCHEDULERS, TIMESTEP_SCHEDULERS
from testing.fakes import FakePayload, FakeRunner
from testing.waiting import PATIENCE_S
from tests.parity.conftest import CPU

MAX_ROWS = 8  # calibration may find that no forward may have more, but never that it must have fewer
SIZES = ((64, 48), (64, 64))
DDIM = ImageSpec("the red fox", num_inference_steps=20, height=64, width=48, seed=1, scheduler="ddim")


@dataclass
class Studio:
    """An engine with the tiny pack, and what its device did since it was last cleared.

    Attributes:
        events: The rows of every UNet forward, and "decode" for every image decoded, in order.
        while_stepping: Called in every forward, on the device thread, with the number of forwards so far.
    """

    engine: Engine
    gate: FakeRunner
    events: list[int | str] = field(default_factory=list)
    while_stepping: Callable[[int], None] = lambda _forwards: None

    @property
    def rows(self) -> list[int]:
        return [event for event in self.events if isinstance(event, int)]

    def note_forward(self, _unet: Any, inputs: tuple[torch.Tensor, ...]) -> None:
        self.events.append(inputs[0].shape[0])
        self.while_stepping(len(self.rows))

    def note_decode(self, _decoder: Any, _inputs: Any) -> None:
        self.events.append("decode")

    def submit(self, payload: ImageSpec | ImageToImage, **how: Any) -> "Future[Any]":
        return self.engine.submit("diffusion", payload, cost=cost_of(spec_of(payload)), **how)

    def together(self, *payloads: ImageSpec | ImageToImage, **how: Any) -> "list[Future[Any]]":
        """Submit them all before any of them can take its first step."""
        self.engine.submit("gate", FakePayload())
        self.gate.wait_for_step()
        futures = [self.submit(payload, **how) for payload in payloads]
        self.gate.allow()
        return futures

    def make(self, *payloads: ImageSpec | ImageToImage) -> list[GeneratedImage]:
        return [future.result(PATIENCE_S) for future in self.together(*payloads)]


@pytest.fixture(scope="module")
def components(tiny_pack: ModelPack) -> DiffusionComponents:
    return load_diffusion(tiny_pack, CPU, torch.float32)


@pytest.fixture(scope="module")
def runner(components: DiffusionComponents) -> DiffusionRunner:
    fields = {name: getattr(components, name) for name in components.__dataclass_fields__}
    runner = DiffusionRunner(**fields, device=CPU)
    for height, width in SIZES:
        runner.calibrate(height, width, time_limit_s=PATIENCE_S)  # all rows, however slow the machine
    return runner


@pytest.fixture
def studio(components: DiffusionComponents, runner: DiffusionRunner) -> Iterator[Studio]:
    is_loaded, gate = threading.Event(), FakeRunner(is_gated=True)

    def load_gate() -> FakeRunner:
        is_loaded.set()
        return gate

    engine = Engine()
    engine.add_model("diffusion", lambda: runner, max_rows=MAX_ROWS)
    engine.add_model("gate", load_gate)
    engine.add_model("last", FakeRunner)
    studio = Studio(engine, gate)
    handles = [
        components.unet.register_forward_pre_hook(studio.note_forward),
        components.vae.decoder.register_forward_pre_hook(studio.note_decode),
    ]
    engine.start()
    assert is_loaded.wait(PATIENCE_S)
    while engine.status()["last"].state != "ready":
        threading.Event().wait(0.01)
    yield studio
    gate.open()
    engine.close()
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize(("guidance_scale", "num_images"), [(1.0, 8), (7.5, 4)])
def test_images_of_twenty_steps_take_twenty_forwards_as_long_as_there_is_room(
    studio: Studio, guidance_scale: float, num_images: int
) -> None:
    images = studio.make(*(replace(DDIM, seed=seed, guidance_scale=guidance_scale) for seed in range(num_images)))
    assert studio.rows == [MAX_ROWS] * 20
    assert len({image.pixels.tobytes() for image in images}) == num_images


def test_an_image_that_arrives_while_the_fifth_step_runs_ends_at_the_twenty_fifth(studio: Studio) -> None:
    ended_at: list[int] = []
    late: list[Future[Any]] = []

    def arrive(forwards: int) -> None:
        if forwards == 5:
            late.append(studio.submit(replace(DDIM, seed=2), on_step=lambda *_: ended_at.append(len(studio.rows))))

    studio.while_stepping = arrive
    studio.make(DDIM)
    late[0].result(PATIENCE_S)
    assert ended_at == list(range(6, 26))
    assert studio.rows == [2] * 5 + [4] * 15 + [2] * 5


def test_an_unguided_image_costs_one_row_where_it_shares_a_forward(studio: Studio) -> None:
    unguided = replace(DDIM, guidance_scale=1.0)
    studio.make(DDIM, *(replace(unguided, seed=seed) for seed in range(3)))
    assert studio.rows == [5] * 20

    studio.events.clear()
    studio.make(unguided)
    assert studio.rows == [2] * 20, "alone it is padded to two"


@pytest.mark.parametrize("width", [48, 64], ids=["of the same size", "of another size"])
@pytest.mark.parametrize("arrives_at", [2, 5, 9])
def test_background_work_delays_an_interactive_image_by_one_step_at_most(
    studio: Studio, width: int, arrives_at: int
) -> None:
    stepped_at: list[int] = []
    clicks: list[Future[Any]] = []

    def click(forwards: int) -> None:
        if forwards == arrives_at:
            payload = replace(DDIM, width=width, num_inference_steps=8)
            clicks.append(studio.submit(payload, on_step=lambda *_: stepped_at.append(len(studio.rows))))

    studio.while_stepping = click
    work = [replace(DDIM, seed=seed, num_inference_steps=8) for seed in range(6)]  # more rows than a step takes
    jobs = studio.together(*work, priority=Priority.BACKGROUND)
    for future in [*jobs, *clicks]:
        future.result(PATIENCE_S)
    assert len(stepped_at) == 8
    waits = np.diff([arrives_at, *stepped_at]) - 1
    assert waits.max() <= 1, "steps of others between its arrival or its last step and the next of its own"
    assert waits.sum() <= 2, "one step in eight belongs to the background"


def test_one_image_is_decoded_between_two_steps_and_all_without_steps(studio: Studio) -> None:
    short = replace(DDIM, num_inference_steps=5, guidance_scale=1.0)
    studio.make(*(replace(short, seed=seed) for seed in range(6)), replace(DDIM, num_inference_steps=9))
    steps = [event if event == "decode" else "step" for event in studio.events]
    assert steps == ["step"] * 5 + ["decode", "step"] * 4 + ["decode"] * 3


def test_an_image_that_is_no_number_fails_alone(studio: Studio) -> None:
    good = replace(DDIM, num_inference_steps=4)
    [alone] = studio.make(good)
    bad, neighbour = studio.together(replace(good, guidance_scale=1e38), good)
    assert isinstance(bad.exception(PATIENCE_S), InferenceFailed)
    assert neighbour.result(PATIENCE_S).pixels.tobytes() == alone.pixels.tobytes()
    assert 4 in studio.rows, "they shared a forward"


def random_payload(rng: random.Random, width: int) -> ImageSpec:
    noise_scheduler = rng.choice(list(NOISE_SCHEDULERS))
    return ImageSpec(
        prompt=rng.choice(["a fox", "the red fox", "a dog and a cat"]),
        negative_prompt=rng.choice(["", "a dog"]),
        guidance_scale=rng.choice([1.0, 2.5, 7.5]),
        num_inference_steps=rng.randint(1, 12),
        height=64,
        width=width,
        seed=rng.randrange(2**53),
        scheduler=noise_scheduler,
    )


def random_schedule(rng: random.Random, spec: ImageSpec) -> ImageSpec:
    """The same image at any speed, with any timesteps and any interval of guidance."""
    spec = replace(spec, speed=rng.choice(["exact", "balanced", "balanced"]))
    if rng.random() < 0.5:
        start = rng.choice([0.0, 0.2, 0.4])
        spec = replace(spec, guidance_interval=(start, rng.choice([0.6, 0.8, 1.0])))
    if spec.scheduler in SPACED_SCHEDULERS and rng.random() < 0.6:
        spec = replace(spec, timestep_spacing=rng.choice(["leading", "trailing", "linspace"]))
    elif spec.scheduler in TIMESTEP_SCHEDULERS and rng.random() < 0.6:
        timesteps = sorted(rng.sample(range(1000), spec.num_inference_steps), reverse=True)
        spec = replace(spec, timesteps=tuple(timesteps))
    return spec


def from_a_picture(rng: random.Random, spec: ImageSpec) -> ImageToImage:
    """The same image made from a random picture, at any strength that leaves a step, with or without a mask."""
    pixels = np.random.default_rng(rng.randrange(4)).integers(0, 256, (spec.height, spec.width, 3), np.uint8)
    mask = np.random.default_rng(rng.randrange(4)).integers(0, 256, (spec.height, spec.width), np.uint8)
    is_masked = rng.random() < 0.5
    spec = replace(
        spec,
        strength=rng.uniform(1.01 / spec.num_inference_steps, 1.0) if spec.num_inference_steps > 1 else 1.0,
        init_image=PictureRef(str(hash(pixels.tobytes()))),
        mask=PictureRef("mask") if is_masked else None,
    )
    return ImageToImage(spec, pixels, mask if is_masked else None)


@dataclass
class Hay:
    """Random neighbours that come and go with the forwards, and one needle among them.

    Attributes:
        needle_at: The forward in which the needle arrives.
        callers: Whose the neighbours are; the needle is of a caller of its own.
        is_any_schedule: Whether the neighbours have any speed, timesteps and interval of guidance.
        has_pictures: Whether half of the neighbours are made from pictures.
        shared: The rows of the forwards in which the needle stepped.
    """

    studio: Studio
    needle: ImageSpec | ImageToImage
    rng: random.Random
    needle_at: int
    callers: tuple[str, ...] = ("needle",)
    is_any_schedule: bool = False
    has_pictures: bool = False
    straws: "list[Future[Any]]" = field(default_factory=list)
    found: "Future[Any] | None" = None
    shared: list[int] = field(default_factory=list)

    def stir(self, forwards: int) -> None:
        if self.found is not None and self.found.done():
            return
        if forwards == self.needle_at:
            self.found = self.studio.submit(
                self.needle, on_step=lambda *_: self.shared.append(self.studio.rows[-1]), caller="needle"
            )
        if self.straws and self.rng.random() < 0.25:
            self.rng.choice(self.straws).cancel()
        running = [straw for straw in self.straws if not straw.done()]
        for _ in range(self.rng.randint(0, 2) if len(running) < 4 else 0):
            spec = random_payload(self.rng, self.rng.choice([48, 48, 48, 64]))
            if self.is_any_schedule:
                spec = random_schedule(self.rng, spec)
            payload = from_a_picture(self.rng, spec) if self.has_pictures and self.rng.random() < 0.5 else spec
            how = {"priority": self.rng.choice(list(Priority)), "caller": self.rng.choice(self.callers)}
            self.straws.append(self.studio.submit(payload, **how))


@pytest.mark.parametrize("callers", [("needle",), ("a", "b", "c", "needle")], ids=len)
@pytest.mark.parametrize("seed", range(6))
def test_an_image_is_the_same_bytes_alone_and_in_the_hay(studio: Studio, seed: int, callers: tuple[str, ...]) -> None:
    rng = random.Random(seed)
    needle = replace(random_payload(rng, width=48), num_inference_steps=10)
    [alone] = studio.make(needle)
    studio.events.clear()
    hay = Hay(studio, needle, rng, needle_at=rng.randint(2, 8), callers=callers)
    studio.while_stepping = hay.stir

    studio.make(replace(random_payload(rng, width=48), num_inference_steps=12))
    assert hay.found is not None
    assert hay.found.result(PATIENCE_S).pixels.tobytes() == alone.pixels.tobytes()
    own_rows = 2 if needle.is_guided else 1
    assert sum(rows > max(2, own_rows) for rows in hay.shared) >= 3, "its forwards were shared"
    assert len(set(hay.shared)) >= 2, "by different numbers"
    assert any(straw.cancelled() for straw in hay.straws), "some left midway"


@pytest.mark.parametrize("seed", range(12))
def test_an_image_of_any_schedule_is_the_same_bytes_in_a_hay_of_any_schedules(studio: Studio, seed: int) -> None:
    rng = random.Random(seed)
    needle = random_schedule(rng, replace(random_payload(rng, width=48), num_inference_steps=16))
    [alone] = studio.make(needle)
    own_forwards = len(studio.rows)
    assert own_forwards == sum(rows > 0 for rows in needle.step_rows)
    studio.events.clear()
    hay = Hay(studio, needle, rng, needle_at=rng.randint(2, 8), callers=("a", "needle"), is_any_schedule=True)
    studio.while_stepping = hay.stir

    studio.make(replace(random_payload(rng, width=48), num_inference_steps=12))
    assert hay.found is not None
    assert hay.found.result(PATIENCE_S).pixels.tobytes() == alone.pixels.tobytes()
    assert len(hay.shared) == own_forwards
    assert max(hay.shared) > 2, "its forwards were shared"


@pytest.mark.parametrize("seed", range(8))
def test_an_image_from_a_picture_is_the_same_bytes_in_a_hay_with_pictures(studio: Studio, seed: int) -> None:
    """Needles with and without a picture by turns, in any schedule and at any strength."""
    rng = random.Random(seed)
    spec = random_schedule(rng, replace(random_payload(rng, width=48), num_inference_steps=16))
    needle = from_a_picture(rng, spec) if seed % 4 else spec
    [alone] = studio.make(needle)
    own_forwards = len(studio.rows)
    assert own_forwards == sum(rows > 0 for rows in spec_of(needle).step_rows)
    studio.events.clear()
    hay = Hay(studio, needle, rng, 2, callers=("a", "needle"), is_any_schedule=True, has_pictures=True)
    studio.while_stepping = hay.stir

    studio.make(replace(random_payload(rng, width=48), num_inference_steps=12))
    assert hay.found is not None
    assert hay.found.result(PATIENCE_S).pixels.tobytes() == alone.pixels.tobytes()
    assert len(hay.shared) == own_forwards


def test_a_balanced_image_takes_a_forward_for_each_computed_step_only(studio: Studio) -> None:
    told: list[tuple[int, int]] = []
    [exact] = studio.make(DDIM)
    studio.events.clear()
    future = studio.submit(replace(DDIM, speed="balanced"), on_step=lambda *step: told.append(step))
    balanced = future.result(PATIENCE_S)
    assert studio.rows == [2] * 11
    assert told == [(step, 11) for step in range(1, 12)]
    assert balanced.pixels.tobytes() != exact.pixels.tobytes()


@pytest.mark.parametrize("changes", [{"num_inference_steps": 8}, {"scheduler": "euler_a"}, {"scheduler": "lcm"}])
def test_balanced_is_exact_where_the_forecast_is_off(studio: Studio, changes: dict[str, Any]) -> None:
    exact, balanced = studio.make(replace(DDIM, **changes), replace(DDIM, speed="balanced", **changes))
    assert balanced.pixels.tobytes() == exact.pixels.tobytes()


def test_rows_that_guidance_leaves_admit_the_next_image_in_the_same_step(studio: Studio) -> None:
    """Four images fill the step while they are guided; from their sixth step on they leave room for a fifth."""
    half = replace(DDIM, num_inference_steps=10, guidance_interval=(0.0, 0.5))
    images = studio.make(*(replace(half, seed=seed) for seed in range(5)))
    assert studio.rows == [8] * 5 + [6] * 5 + [2] * 5, "a forward of one row is padded to two"
    [alone] = studio.make(replace(half, seed=4))
    assert alone.pixels.tobytes() == images[4].pixels.tobytes()


def test_an_interval_of_the_whole_schedule_changes_no_byte(studio: Studio) -> None:
    plain, whole = studio.make(DDIM, replace(DDIM, guidance_interval=(0.0, 1.0)))
    assert whole.pixels.tobytes() == plain.pixels.tobytes()


def test_outside_of_the_interval_an_image_steps_as_without_guidance(studio: Studio) -> None:
    never, unguided = studio.make(replace(DDIM, guidance_interval=(0.0, 0.001)), replace(DDIM, guidance_scale=1.0))
    assert never.pixels.tobytes() == unguided.pixels.tobytes()
