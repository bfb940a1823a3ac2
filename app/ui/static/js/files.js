// Files that are dropped on the page or chosen, and files that the node gives.

import {blob, getKey} from './api.js';
import {fill, h, toast} from './dom.js';

/** An element that takes image files, dropped, pasted into it or chosen by a button; `onFiles(files)` gets an array. */
export function dropZone({label, multiple = true, onFiles}) {
  const input = h('input', {type: 'file', accept: 'image/png,image/jpeg,image/webp', multiple, class: 'hidden-label'});
  const zone = h('label', {class: 'drop'}, h('span', {}, label, ' '), h('span', {class: 'muted small'}, 'Drop files here, or press Enter to choose.'), input);
  const take = list => {
    const files = [...list];
    if (files.length) onFiles(multiple ? files : files.slice(0, 1));
  };
  input.addEventListener('change', () => {
    take(input.files);
    input.value = '';
  });
  onDrop(zone, carried => take(carried.files));
  zone.addEventListener('paste', event => take(event.clipboardData.files));
  return zone;
}

/** Return the bytes of a file or blob in base64. */
export async function base64Of(file) {
  const data = new Uint8Array(await file.arrayBuffer());
  let text = '';
  for (let start = 0; start < data.length; start += 8192) text += String.fromCharCode(...data.subarray(start, start + 8192));
  return btoa(text);
}

/** Let an element take what is dropped on it: `take(dataTransfer)`. */
export function onDrop(zone, take) {
  for (const name of ['dragenter', 'dragover']) zone.addEventListener(name, event => {
    event.preventDefault();
    zone.classList.add('over');
  });
  for (const name of ['dragleave', 'drop']) zone.addEventListener(name, () => zone.classList.remove('over'));
  zone.addEventListener('drop', event => {
    event.preventDefault();
    take(event.dataTransfer);
  });
}

/** A link to a file of the API; with a key the file is fetched first, as a link sends none. */
export function fileLink(path, label, {name = '', accept = '', opens = false} = {}) {
  if (!getKey()) return h('a', {href: path, class: 'button', ...(opens ? {target: '_blank', rel: 'noopener'} : {download: name})}, label);
  const button = h('button', {type: 'button'}, label);
  button.addEventListener('click', async () => {
    button.disabled = true;
    try {
      const url = URL.createObjectURL(await blob(path, accept ? {headers: {Accept: accept}} : {}));
      const link = h('a', {href: url, download: name});
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (error) {
      toast(error.detail || error.message, 'error');
    } finally {
      button.disabled = false;
    }
  });
  return button;
}

/** Show the faults of a refused form: those of a field at its element, found by `elementOf(pointer)`, all in a list. */
export function showFaults(box, error, elementOf = () => null) {
  const lines = error.errors?.length ? error.errors : [{pointer: '', detail: error.detail || error.message}];
  for (const {pointer} of lines) elementOf(pointer)?.setAttribute('aria-invalid', 'true');
  fill(box, h('ul', {class: 'error faults'}, lines.slice(0, 8).map(({pointer, detail}) => h('li', {}, pointer ? `${pointer.replace(/^#\//, '')}: ` : '', detail))));
}

export function clearFaults(form) {
  for (const element of form.querySelectorAll('[aria-invalid]')) element.removeAttribute('aria-invalid');
}
