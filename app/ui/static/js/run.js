// One request of the Studio under way: its progress step by step, its previews, its place, and its end.

import {api, events} from './api.js';
import {fill, h} from './dom.js';
import {count} from './format.js';

const ASKED_EVERY_MS = 2_000;

export class Run {
  constructor(root, body) {
    this.root = root;
    this.body = body;
    this.stopper = new AbortController();
    this.began = performance.now();
    this.line = h('p', {role: 'status', class: 'muted'}, 'Sent. Waiting for its turn …');
    this.tiles = [];
    this.grid = h('div', {class: 'grid made'});
    for (let image = 0; image < (body.best_of || body.num_images_per_prompt || 1); image += 1) this.add(image);
    fill(root, h('article', {class: 'card stack'}, h('h2', {class: 'wrap'}, body.prompt), this.line, this.grid));
    root.hidden = false;
  }

  add(image) {
    const picture = h('img', {class: 'thumb preview', alt: `Preview of image ${image + 1}`, hidden: true});
    const blank = h('div', {class: 'skeleton thumb'});
    const bar = h('progress', {max: 1, value: 0, 'aria-label': `Image ${image + 1}`});
    this.tiles.push({picture, blank, bar});
    this.grid.append(h('div', {class: 'stack tight'}, blank, picture, bar));
  }

  cancel() {
    this.stopper.abort();
  }

  /** Return the generation; throws an ApiError, or an AbortError when it was cancelled. */
  async finish() {
    const timer = setInterval(() => this.tell(), ASKED_EVERY_MS);
    let result = null;
    let failure = null;
    try {
      await events('/generate/events', {body: this.body, signal: this.stopper.signal, onEvent: ({data}) => {
        if (data.kind === 'progress') this.step(data);
        else if (data.kind === 'generation') result = data;
        else if (data.kind === 'error') failure = data;
        else if (data.kind === 'queued') this.place(data);
      }});
    } finally {
      clearInterval(timer);
      this.root.hidden = true;
    }
    if (failure) throw Object.assign(new Error(failure.detail), failure);
    if (!result) throw new Error('The node ended the answer before the images were there.');
    return {...result, elapsed_ms: performance.now() - this.began};
  }

  step({image, step, steps, preview_png_b64: preview}) {
    const tile = this.tiles[image];
    if (!tile) return;
    this.hasBegun ||= step > 0;
    tile.bar.max = steps;
    tile.bar.value = step;
    if (preview) {
      tile.picture.src = `data:image/png;base64,${preview}`;
      tile.picture.hidden = false;
      tile.blank.hidden = true;
    }
    if (!this.hasBegun) return;
    const seconds = ((performance.now() - this.began) / 1_000).toFixed(1);
    this.line.textContent = this.tiles.length > 1
      ? `Image ${image + 1} of ${this.tiles.length}: step ${step} of ${steps}, ${seconds} s`
      : `Step ${step} of ${steps}, ${seconds} s`;
  }

  /** Tell how many images go before the first one of this request. */
  place({position}) {
    this.position = position;
    this.sayPlace();
  }

  sayPlace(wait = '') {
    const before = this.position === undefined ? 'Waiting for its turn' : this.position === 0 ? 'Waiting: it is next'
      : `Waiting: ${count(this.position, 'image goes', 'images go')} before it`;
    this.line.textContent = `${before}${wait} …`;
  }

  /** While nothing has begun: tell how long the node expects it to wait. */
  async tell() {
    if (this.hasBegun) return;
    const {models} = await api('/capabilities').catch(() => ({models: {}}));
    const wait = models.diffusion?.expected_wait_s;
    if (!this.hasBegun && wait !== null && wait !== undefined) this.sayPlace(`, about ${wait < 1 ? 'a second' : `${Math.round(wait)} s`}`);
  }
}
