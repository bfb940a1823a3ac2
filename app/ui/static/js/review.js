// Review of a dataset's images with keys: a page of tiles, the chosen one large, and decisions that go to the API.

import {api, imageUrl} from './api.js';
import {fill, h, toast} from './dom.js';
import {percent} from './format.js';

const TILE_WIDTH = 128;
const MAX_HISTORY = 500;
const WAIT_FOR_DETAILS_MS = 150;
const MARKS = {accepted: '✓', rejected: '✕'};

/** An image of the API in an element, loaded when it comes into view. */
export function picture(id, width, props = {}) {
  const image = h('img', {loading: 'lazy', decoding: 'async', ...props});
  imageUrl(id, width).then(url => { image.src = url; }, () => { image.alt = `${image.alt} (its file cannot be read)`; });
  return image;
}

export class Review {
  /** `one` shows the chosen image; `onReview(before, after)` is told of each decision that the node has stored. */
  constructor({datasetId, one, onReview}) {
    Object.assign(this, {datasetId, one, onReview, items: [], index: 0, history: [], sending: Promise.resolve()});
    document.addEventListener('keydown', event => this.onKey(event));
  }

  /** Draw the images of a page; the first is chosen, or the last after a step back. */
  draw(items, into, pages) {
    this.items = items;
    this.pages = pages;
    const hadFocus = this.box && document.activeElement === this.box;
    this.tiles = items.map((image, index) => this.tile(image, index));
    this.box = h('div', {class: 'review-tiles', role: 'listbox', tabIndex: 0, 'aria-label': 'Images of this page'}, this.tiles);
    fill(into, this.box);
    if (hadFocus || this.takesFocus) this.box.focus();
    this.takesFocus = false;
    this.choose(this.fromEnd ? items.length - 1 : 0);
    this.fromEnd = false;
  }

  clear() {
    this.items = [];
    fill(this.one);
  }

  tile(image, index) {
    const label = [image.class_name, image.split, image.review].filter(Boolean).join(', ');
    return h('div', {
      class: `tile ${image.review || ''}`, role: 'option', id: `tile-${index}`, 'aria-selected': 'false', 'aria-label': label,
      onclick: () => { this.choose(index); this.box.focus(); },
    }, picture(image.id, TILE_WIDTH, {class: 'thumb', alt: ''}), image.review && h('span', {class: 'mark', 'aria-hidden': 'true'}, MARKS[image.review]));
  }

  get chosen() {
    return this.items[this.index];
  }

  choose(index) {
    this.tiles[this.index]?.setAttribute('aria-selected', 'false');
    this.index = Math.max(0, Math.min(index, this.items.length - 1));
    const tile = this.tiles[this.index];
    tile.setAttribute('aria-selected', 'true');
    this.box.setAttribute('aria-activedescendant', tile.id);
    if (document.activeElement === this.box) tile.scrollIntoView({block: 'nearest'});
    this.showOne();
  }

  async move(by) {
    const to = this.index + by;
    if (to >= 0 && to < this.items.length) return this.choose(to);
    const isForth = by > 0;
    if (isForth ? !this.pages.hasNext : !this.pages.hasPrevious) {
      if (isForth) toast('This is the last image.');
      return this.choose(to);
    }
    this.fromEnd = !isForth;
    this.takesFocus = document.activeElement === this.box || document.activeElement === document.body;
    await (isForth ? this.pages.next() : this.pages.previous());
  }

  columns() {
    const top = this.tiles[0]?.offsetTop;
    const next = this.tiles.findIndex(tile => tile.offsetTop !== top);
    return next < 0 ? this.tiles.length : next;
  }

  onKey(event) {
    if (!this.items.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, select, textarea, button, a, summary, [contenteditable], dialog') && event.key.startsWith('Arrow')) return;
    if (event.target.closest('input, select, textarea, [contenteditable], dialog')) return;
    const keys = {
      a: () => this.decide('accepted'), r: () => this.decide('rejected'), u: () => this.undo(),
      ArrowRight: () => this.move(1), ArrowLeft: () => this.move(-1),
      ArrowDown: () => this.move(this.columns()), ArrowUp: () => this.move(-this.columns()),
    };
    const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  decide(review) {
    const image = this.chosen;
    if (!image) return;
    if (image.decision !== 'kept') return toast('The filter rejected this image: it is not part of the dataset.');
    this.history.push({image, before: image.review});
    if (this.history.length > MAX_HISTORY) this.history.shift();
    this.store(image, review);
    this.move(1);
  }

  undo() {
    const last = this.history.pop();
    if (!last) return toast('There is nothing to undo.');
    const index = this.items.findIndex(one => one.id === last.image.id);
    const image = this.items[index] || last.image;
    this.store(image, last.before);
    if (index >= 0) this.choose(index);
    else toast('The last decision, on another page, was taken back.');
  }

  /** Show a decision at once and send it, one after another; a refused one is taken back. */
  store(image, review) {
    const before = image.review;
    if (before === review) return;
    this.mark(image, review);
    const path = `/datasets/${this.datasetId}/images/${image.id}`;
    this.sending = this.sending.then(() => api(path, {method: 'PATCH', body: {review}})).then(() => this.onReview(before, review), error => {
      if (image.review === review) this.mark(image, before);
      toast(error.detail || error.message, 'error');
    });
  }

  mark(image, review) {
    image.review = review;
    const index = this.items.findIndex(one => one.id === image.id);
    if (index < 0) return;
    this.items[index].review = review;
    const tile = this.tile(this.items[index], index);
    tile.setAttribute('aria-selected', String(index === this.index));
    this.tiles[index].replaceWith(tile);
    this.tiles[index] = tile;
    if (index === this.index) this.showOne();
  }

  showOne() {
    const image = this.chosen;
    const details = h('div', {});
    const button = (label, key, act, name) => h('button', {type: 'button', dataset: {review: name}, 'aria-pressed': String(image.review === name), onclick: act}, label, ' ', h('kbd', {}, key));
    const facts = [image.class_name, image.split, image.source, image.seed === null ? null : `seed ${image.seed}`,
      image.clip_score === null ? null : `CLIP score ${image.clip_score.toFixed(1)}`].filter(Boolean);
    fill(this.one,
      picture(image.id, null, {class: 'large', alt: `${image.class_name || 'image'}, ${image.split || ''}`, loading: 'eager'}),
      h('div', {class: 'row'},
        button('Accept', 'A', () => this.decide('accepted'), 'accepted'),
        button('Reject', 'R', () => this.decide('rejected'), 'rejected'),
        h('button', {type: 'button', onclick: () => this.undo()}, 'Undo ', h('kbd', {}, 'U'))),
      h('p', {class: 'wrap', role: 'status'}, image.review ? h('span', {class: `badge ${image.review === 'accepted' ? 'good' : 'bad'}`}, image.review) : null, ` ${facts.join(' · ')}`),
      details,
      h('p', {}, h('a', {href: `/ui/images/${image.id}`}, 'Lineage and settings')));
    this.showDetails(image, details);
  }

  showDetails(image, into) {
    this.reading?.abort();
    const reading = this.reading = new AbortController();
    setTimeout(async () => {
      if (reading.signal.aborted) return;
      const read = await api(`/images/${image.id}/metadata`, {signal: reading.signal}).catch(() => null);
      if (!read) return;
      const own = read.label_probabilities?.slice(0, 5);
      fill(into, read.lineage.prompt ? h('p', {class: 'wrap small'}, read.lineage.prompt) : null,
        read.reason ? h('p', {class: 'muted small wrap'}, read.reason) : null,
        own ? h('p', {class: 'muted small wrap'}, own.map(one => `${one.label} ${percent(one.probability)}`).join(' · ')) : null);
    }, WAIT_FOR_DETAILS_MS);
  }
}
