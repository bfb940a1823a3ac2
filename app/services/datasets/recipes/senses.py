"""Which of several meanings a class name has, judged by the other classes: a crane among birds is a bird.

CLIP embeds the candidates elsewhere; this works on arrays. Imports no models. Pure functions; any thread may call them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from app.names import name_key

Embeddings = npt.NDArray[np.float32]

# Names with several meanings that can be drawn, each as "name, a kind of ...". Other names have one candidate:
# themselves. A user's own text takes precedence over both.
GLOSSES: Mapping[str, tuple[str, ...]] = {
    "bass": ("bass, a kind of fish", "bass, a kind of guitar"),
    "bat": ("bat, a kind of flying animal", "bat, a kind of sports equipment"),
    "bow": ("bow, a kind of weapon", "bow, a kind of ribbon"),
    "cardinal": ("cardinal, a kind of bird", "cardinal, a kind of priest"),
    "chest": ("chest, a kind of furniture", "chest, a part of the body"),
    "club": ("club, a kind of sports equipment", "club, a kind of building"),
    "crane": ("crane, a kind of bird", "crane, a kind of construction machine"),
    "date": ("date, a kind of fruit", "date, a page of a calendar"),
    "drill": ("drill, a kind of tool", "drill, a kind of monkey"),
    "fan": ("fan, a kind of machine", "fan, a person who cheers"),
    "jaguar": ("jaguar, a kind of animal", "jaguar, a kind of car"),
    "kite": ("kite, a kind of toy", "kite, a kind of bird"),
    "mole": ("mole, a kind of animal", "mole, a spot on skin"),
    "mouse": ("mouse, a kind of animal", "mouse, a kind of computer device"),
    "nail": ("nail, a kind of fastener", "nail, a part of a finger"),
    "orange": ("orange, a kind of fruit", "orange, a colour"),
    "palm": ("palm, a kind of tree", "palm, a part of a hand"),
    "pitcher": ("pitcher, a kind of jug", "pitcher, a baseball player"),
    "plane": ("plane, a kind of aircraft", "plane, a kind of woodworking tool"),
    "ray": ("ray, a kind of fish", "ray, a beam of light"),
    "seal": ("seal, a kind of animal", "seal, a stamp in wax"),
    "trunk": ("trunk, a part of a tree", "trunk, a kind of luggage"),
    "turkey": ("turkey, a kind of bird", "turkey, a country on a map"),
}


def candidates(name: str) -> tuple[str, ...]:
    """Return the meanings that a class name may have; a name without an entry in `GLOSSES` means itself."""
    return GLOSSES.get(name_key(name), (name,))


def choose_senses(embeddings: Sequence[Embeddings]) -> tuple[int, ...]:
    """Choose for each class the candidate that is nearest to the other classes' candidates.

    A class's similarity to another is that to the other's nearest candidate; a candidate's score is the mean over the
    other classes. The first candidate wins among equals, and where there is no other class.

    Args:
        embeddings: CLIP's text embeddings of each class's candidates, L2 norm 1.

    Shapes:
        embeddings: K arrays (P_k, D), P_k >= 1.

    Returns:
        K indexes into the candidates.
    """
    chosen = []
    for index, own in enumerate(embeddings):
        others = [rows for place, rows in enumerate(embeddings) if place != index]
        scores = [(own @ rows.T).max(axis=1) for rows in others]
        chosen.append(int(np.mean(scores, axis=0).argmax()) if scores else 0)
    return tuple(chosen)
