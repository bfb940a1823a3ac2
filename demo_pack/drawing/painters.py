"""The painting function of each class, except the furred animals. Imports no styles and no captions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from demo_pack.drawing import built, creatures, plants
from demo_pack.drawing.canvas import Canvas, Colour

Painter = Callable[[Canvas, Colour, np.random.Generator], None]

PAINTERS: dict[str, Painter] = {
    "bird": creatures.bird,
    "fish": creatures.fish,
    "butterfly": creatures.butterfly,
    "elephant": creatures.elephant,
    "turtle": creatures.turtle,
    "snail": creatures.snail,
    "flower": plants.flower,
    "tree": plants.tree,
    "mushroom": plants.mushroom,
    "apple": plants.apple,
    "house": built.house,
    "boat": built.boat,
    "car": built.car,
    "balloon": built.balloon,
}
