// A dialog in which one of the newest stored images is chosen.

import {api} from './api.js';
import {fill, h, state} from './dom.js';
import {thumbnail} from './thumbnails.js';

/** Return the id of the image that is chosen; null if none is. */
export function pickImage() {
  const grid = h('div', {class: 'grid'});
  const more = h('button', {type: 'button', hidden: true}, 'Show more');
  const dialog = h('dialog', {'aria-label': 'Choose an image'},
    h('div', {class: 'stack'}, h('div', {class: 'row spread'}, h('h2', {}, 'Choose an image'),
      h('button', {type: 'button', onclick: () => dialog.close('')}, 'Close')), grid, more));
  document.body.append(dialog);
  let cursor = null;
  const load = async () => {
    if (!cursor) state(grid, 'loading');
    try {
      const page = await api(`/images?limit=24${cursor ? `&cursor=${cursor}` : ''}`);
      const tiles = page.items.map(image => h('button', {type: 'button', class: 'pick', onclick: () => dialog.close(image.id)},
        thumbnail(image, 256, `Image with the seed ${image.seed ?? 'unknown'}`)));
      if (!cursor) fill(grid, tiles);
      else grid.append(...tiles);
      if (!cursor && !tiles.length) state(grid, 'empty', 'There are no images yet.');
      cursor = page.next_cursor;
      more.hidden = !cursor;
    } catch (error) {
      state(grid, 'failed', error, load);
    }
  };
  more.addEventListener('click', load);
  load();
  dialog.showModal();
  return new Promise(resolve => dialog.addEventListener('close', () => {
    dialog.remove();
    resolve(dialog.returnValue || null);
  }));
}
