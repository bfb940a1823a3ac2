"""Where an image's seed comes from."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from app.services.datasets.recipes.seeds import drawn_index, image_seed

PLACES = st.tuples(
    st.integers(0, 2**53 - 1),
    st.text(max_size=20),
    st.sampled_from(["train", "test"]),
    st.integers(0),
    st.integers(0, 9),
)


def test_the_seed_is_the_first_53_bits_of_the_hash_over_length_prefixed_values() -> None:
    values = ("7", "füchse", "train", "12", "0")
    packed = b"".join(len(value.encode()).to_bytes(8, "big") + value.encode() for value in values)
    bits = "".join(f"{byte:08b}" for byte in hashlib.sha256(packed).digest())
    assert image_seed(7, "füchse", "train", 12, 0) == int(bits[:53], 2)


def test_the_seed_of_a_place_never_changes() -> None:
    """A change here would silently give every dataset other images."""
    assert image_seed(7, "fox", "train", 0, 0) == 2_454_163_174_676_354


@given(PLACES, PLACES)
def test_places_differ_in_their_seeds(one: tuple, other: tuple) -> None:
    assert (image_seed(*one) == image_seed(*other)) == (one == other)
    assert 0 <= image_seed(*one) < 2**53


@given(PLACES, st.integers(1, 2**20))
def test_a_drawn_index_is_one_of_its_values(place: tuple, size: int) -> None:
    assert 0 <= drawn_index(size, "style", *place) < size


def test_things_drawn_for_one_image_are_independent() -> None:
    places = [(7, "fox", "train", index, 0) for index in range(1_000)]
    pairs = {(drawn_index(3, "style", *place), drawn_index(3, "place", *place)) for place in places}
    assert len(pairs) == 9
