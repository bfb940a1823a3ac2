"""The fixed paints that several subjects share: ink, wood, leaves, glass. Imports no subjects."""

from __future__ import annotations

from demo_pack.drawing.canvas import Colour

INK: Colour = (44, 34, 40)
WHITE: Colour = (255, 255, 252)
CREAM: Colour = (253, 246, 234)
PINK: Colour = (238, 150, 158)
TONGUE: Colour = (232, 104, 122)
WOOD: Colour = (138, 92, 56)
LEAF: Colour = (84, 154, 70)
GLASS: Colour = (176, 216, 236)
BEAK: Colour = (244, 166, 46)
