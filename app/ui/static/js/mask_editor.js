// A dialog in which a mask is painted over a picture: by pointer, by keyboard, or as rectangles of given numbers.

import {h} from './dom.js';

const MAX_SIDE = 1_024; // of the painted canvas, in pixels; the mask has the picture's own size
const MAX_UNDO = 10;
const PAINT = '#e8590c';
const SIDES = {Left: 0, Top: 0, Right: 100, Bottom: 100};
const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

/** What is painted: strokes, rectangles, and what was before. */
class Painting {
  constructor(width, height) {
    const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
    this.canvas = h('canvas', {width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale))});
    this.context = this.canvas.getContext('2d', {willReadFrequently: true});
    Object.assign(this.context, {lineCap: 'round', lineJoin: 'round', fillStyle: PAINT, strokeStyle: PAINT});
    this.before = [];
  }

  /** Remember what is there, for `undo`. */
  remember() {
    this.before.push(this.context.getImageData(0, 0, this.canvas.width, this.canvas.height));
    if (this.before.length > MAX_UNDO) this.before.shift();
  }

  undo() {
    const last = this.before.pop();
    if (last) this.context.putImageData(last, 0, 0);
  }

  erases(isErasing) {
    this.context.globalCompositeOperation = isErasing ? 'destination-out' : 'source-over';
  }

  /** Draw a line of a brush; `size`: its width as a share of the larger side. */
  line([fromX, fromY], [toX, toY], size) {
    this.context.lineWidth = Math.max(1, size * Math.max(this.canvas.width, this.canvas.height));
    this.context.beginPath();
    this.context.moveTo(fromX, fromY);
    this.context.lineTo(toX + 0.01, toY);
    this.context.stroke();
  }

  /** Fill a rectangle; its sides are shares of width and height. */
  rectangle(left, top, right, bottom) {
    const {width, height} = this.canvas;
    this.context.fillRect(Math.round(left * width), Math.round(top * height), Math.round((right - left) * width), Math.round((bottom - top) * height));
  }

  clear() {
    this.context.clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  /** Go on with a mask that was made before: what is white is painted. */
  take(mask) {
    const {width, height} = this.canvas;
    this.context.drawImage(mask, 0, 0, width, height);
    const {data} = this.context.getImageData(0, 0, width, height);
    this.clear();
    const painted = this.context.createImageData(width, height);
    const [red, green, blue] = [1, 3, 5].map(at => parseInt(PAINT.slice(at, at + 2), 16));
    for (let at = 0; at < data.length; at += 4) painted.data.set([red, green, blue, data[at]], at);
    this.context.putImageData(painted, 0, 0);
  }

  get isEmpty() {
    const {data} = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    return !data.some((value, at) => at % 4 === 3 && value);
  }

  /** Return the mask as a PNG file of a size: white where it is painted, black elsewhere. */
  file(width, height) {
    const white = h('canvas', {width: this.canvas.width, height: this.canvas.height});
    const tint = white.getContext('2d');
    tint.drawImage(this.canvas, 0, 0);
    tint.globalCompositeOperation = 'source-in';
    tint.fillStyle = '#fff';
    tint.fillRect(0, 0, white.width, white.height);
    const whole = h('canvas', {width, height});
    const context = whole.getContext('2d');
    context.fillRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    context.drawImage(white, 0, 0, width, height);
    return new Promise(resolve => whole.toBlob(resolve, 'image/png'));
  }
}

/** Let a pointer and the keyboard paint; `brush()`: the size. Returns the mark of the keyboard's place. */
function bindBrush(painting, stage, brush) {
  const {canvas} = painting;
  const mark = h('div', {class: 'mask-brush', hidden: true});
  let last = null;
  let place = [canvas.width / 2, canvas.height / 2];
  let isHeld = false;
  const at = event => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * canvas.width, (event.clientY - box.top) / box.height * canvas.height];
  };
  const move = () => {
    const scale = Math.max(canvas.width, canvas.height) / canvas.width;
    for (const [key, value] of Object.entries({left: place[0] / canvas.width, top: place[1] / canvas.height, width: brush() * scale})) {
      mark.style.setProperty(key, `${100 * value}%`);
    }
  };
  canvas.addEventListener('pointerdown', event => {
    canvas.setPointerCapture(event.pointerId);
    painting.remember();
    last = at(event);
    painting.line(last, last, brush());
  });
  canvas.addEventListener('pointermove', event => {
    if (!last) return;
    const next = at(event);
    painting.line(last, next, brush());
    last = next;
  });
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, () => { last = null; });
  canvas.addEventListener('keydown', event => {
    if (event.key === ' ') {
      event.preventDefault();
      if (!isHeld) {
        painting.remember();
        painting.line(place, place, brush());
      }
      isHeld = true;
    } else if (ARROWS[event.key]) {
      event.preventDefault();
      const step = Math.max(canvas.width, canvas.height) / (event.shiftKey ? 8 : 32);
      const [x, y] = ARROWS[event.key];
      const next = [Math.min(canvas.width, Math.max(0, place[0] + x * step)), Math.min(canvas.height, Math.max(0, place[1] + y * step))];
      if (isHeld) painting.line(place, next, brush());
      place = next;
      mark.hidden = false;
      move();
    }
  });
  canvas.addEventListener('keyup', event => { if (event.key === ' ') isHeld = false; });
  canvas.addEventListener('focus', () => { mark.hidden = !canvas.matches(':focus-visible'); move(); });
  canvas.addEventListener('blur', () => { mark.hidden = true; isHeld = false; });
  stage.append(mark);
  return move;
}

/** The form of a rectangle in percent. */
function rectangle(painting) {
  const inputs = Object.entries(SIDES).map(([label, value]) =>
    h('label', {}, `${label} `, h('span', {class: 'unit'}, '% '), h('input', {type: 'number', min: 0, max: 100, step: 'any', value})));
  const form = h('form', {class: 'stack tight', 'aria-label': 'A rectangle'}, h('div', {class: 'sides'}, inputs), h('div', {class: 'row'}, h('button', {}, 'Add this rectangle')));
  form.addEventListener('submit', event => {
    event.preventDefault();
    painting.remember();
    painting.rectangle(...inputs.map(label => Number(label.querySelector('input').value) / 100));
  });
  return form;
}

async function loaded(url) {
  const picture = h('img', {src: url, alt: ''});
  await picture.decode();
  return picture;
}

/** Return a painted mask as a PNG file of the picture's size; null if it was given up. `before`: the URL of a mask to go on with. */
export async function paintMask(url, before = null) {
  const picture = await loaded(url);
  const painting = new Painting(picture.naturalWidth, picture.naturalHeight);
  if (before) painting.take(await loaded(before));
  const {canvas} = painting;
  Object.assign(canvas, {tabIndex: 0, className: 'mask-canvas'});
  canvas.setAttribute('role', 'application');
  canvas.setAttribute('aria-label', 'The mask over the picture');
  canvas.setAttribute('aria-describedby', 'mask-help');
  const stage = h('div', {class: 'mask-stage'}, picture, canvas);
  const size = h('input', {type: 'range', min: 0.02, max: 0.5, step: 0.02, value: 0.12});
  const place = bindBrush(painting, stage, () => Number(size.value));
  size.addEventListener('input', place);
  const erase = h('input', {type: 'checkbox', onchange: event => painting.erases(event.target.checked)});
  const said = h('p', {class: 'error', role: 'alert', hidden: true}, 'Nothing is painted yet. Paint what is to be made anew.');
  let file = null;
  const use = async () => {
    said.hidden = !painting.isEmpty;
    if (!said.hidden) return;
    file = await painting.file(picture.naturalWidth, picture.naturalHeight);
    dialog.close();
  };
  const act = (label, does) => h('button', {type: 'button', onclick: does}, label);
  const dialog = h('dialog', {class: 'mask-dialog', 'aria-label': 'Paint a mask'}, h('div', {class: 'stack'},
    h('div', {class: 'row spread'}, h('h2', {}, 'Paint what is made anew'), act('Close', () => dialog.close())),
    stage,
    h('p', {class: 'muted small', id: 'mask-help'}, 'Paint with the pointer. Or with the keyboard, on the picture: the arrow keys move the brush, with Shift further; hold Space to paint.'),
    h('label', {}, 'Brush ', size),
    h('div', {class: 'row'}, h('label', {class: 'check'}, erase, ' Erase'),
      act('Undo', () => painting.undo()),
      act('Clear', () => {
        painting.remember();
        painting.clear();
      })),
    rectangle(painting), said,
    h('div', {class: 'row'}, h('button', {type: 'button', class: 'primary', onclick: use}, 'Use this mask'))));
  document.body.append(dialog);
  dialog.showModal();
  canvas.focus();
  await new Promise(resolve => dialog.addEventListener('close', resolve));
  dialog.remove();
  return file;
}
