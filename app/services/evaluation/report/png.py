"""A picture as a PNG file, drawn with Pillow, which the service has already.

Drawn from the same shapes as the page's SVG, so no SVG renderer (cairo, resvg) and no plotting library is needed.
Pillow draws without antialiasing, so lines and boxes are drawn at twice the final resolution and reduced; text is drawn
at the final one. Pure function except for fonts; takes up to a second, runs on a pool thread.
"""

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from app.services.evaluation.report.picture import TEXT_SIZE, Box, Dot, Label, Path, Picture, Role
from app.services.reports.label_fonts import Font, font_for, system_fonts

# Pixels of the file for one of the picture: sharp on a dense screen and on paper.
SCALE = 2
_SUPERSAMPLING = 2
_COLOURS: dict[Role, tuple[int, int, int]] = {
    "ink": (31, 35, 40),
    "muted": (110, 119, 129),
    "grid": (208, 215, 222),
    "first": (9, 105, 218),
    "second": (188, 76, 0),
    "good": (26, 127, 55),
    "bad": (207, 34, 46),
}
_PAPER = (255, 255, 255)


def render_picture(picture: Picture) -> bytes:
    """Return a PNG file of `SCALE` times the picture's size, dark on white, without the caption.

    A name whose characters no font of this machine has is drawn with replacement boxes.
    """
    zoom = SCALE * _SUPERSAMPLING
    sheet = Image.new("RGB", (picture.width * zoom, picture.height * zoom), _PAPER)
    draw = ImageDraw.Draw(sheet, "RGBA")
    for shape in picture.shapes:
        if not isinstance(shape, Label):
            _draw_shape(draw, shape, zoom)
    sheet = sheet.reduce(_SUPERSAMPLING)
    fonts = [_sized(font) for font in system_fonts()]
    for shape in picture.shapes:
        if isinstance(shape, Label):
            _draw_label(sheet, shape, fonts)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw_shape(draw: ImageDraw.ImageDraw, shape: Box | Path | Dot, zoom: int) -> None:
    colour = _COLOURS[shape.role]
    match shape:
        case Box():
            x, y = shape.x * zoom, shape.y * zoom
            box = (x, y, x + max(shape.width * zoom - 1, 0), y + max(shape.height * zoom - 1, 0))
            if shape.width > 0 and shape.height > 0:
                draw.rectangle(box, fill=(*colour, round(255 * shape.opacity)))
        case Path():
            points = [(x * zoom, y * zoom) for x, y in shape.points]
            if len(points) > 1:
                draw.line(points, fill=colour, width=round(shape.thickness * zoom), joint="curve")
        case Dot():
            x, y, radius = shape.x * zoom, shape.y * zoom, shape.radius * zoom
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _draw_label(sheet: Image.Image, label: Label, fonts: Sequence[Font]) -> None:
    font = font_for(label.text, fonts) or fonts[-1]
    length = font.getlength(label.text)
    x, y = label.x * SCALE, label.y * SCALE
    shift = {"start": 0.0, "middle": length / 2, "end": length}[label.anchor]
    colour = _COLOURS[label.role]
    if not label.is_vertical:
        ImageDraw.Draw(sheet).text((x - shift, y), label.text, colour, font, anchor="lm")
        return
    strip = Image.new("L", (max(round(length) + 2, 1), 2 * TEXT_SIZE * SCALE))
    ImageDraw.Draw(strip).text((0, strip.height / 2), label.text, 255, font, anchor="lm")
    turned = strip.transpose(Image.Transpose.ROTATE_90)
    place = (round(x - turned.width / 2), round(y - turned.height + shift))
    sheet.paste(Image.new("RGB", turned.size, colour), place, turned)


def _sized(font: Font) -> Font:
    return font.font_variant(size=TEXT_SIZE * SCALE) if isinstance(font, ImageFont.FreeTypeFont) else font
