// Pictures of stored images, small or whole, loaded with the tab's key.

import {imageUrl} from './api.js';
import {h} from './dom.js';

/** Return an <img> of an image, `width` pixels wide at most (no width: the whole file). */
export function thumbnail(image, width, alt) {
  const shown = h('img', {alt, class: 'thumb', width: image.width, height: image.height, decoding: 'async', loading: 'lazy'});
  show(shown, image.id, width);
  return shown;
}

/** Load an image into an <img>; one that cannot be loaded is marked. */
export async function show(element, id, width) {
  element.onerror = () => element.classList.add('lost');
  try {
    element.src = await imageUrl(id, width);
  } catch (error) {
    element.classList.add('lost');
    element.title = error.detail || '';
  }
}
