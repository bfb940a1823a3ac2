// Uploads into a dataset: files in small requests, and what became of each.

import {api} from './api.js';
import {$, fill, h} from './dom.js';
import {dropZone} from './files.js';

const FILES_AT_ONCE = 10;
const MAX_LINES = 100;

/** Fill the page's part for uploads; `onStored()` is called after files were stored. */
export function startUploads({dataset, path, onStored}) {
  const results = $('#upload-results');
  const line = $('#upload-state');
  $('#upload-class').append(...dataset.classes.map(one => h('option', {value: one.name}, one.name)));
  let isBusy = false;

  const tell = (file, result) => {
    const refused = result.refused;
    const link = refused?.duplicate_of && h('a', {href: `/ui/images/${refused.duplicate_of}`}, ' It is this one.');
    results.prepend(h('li', {class: refused ? 'error wrap' : 'wrap'}, file.name, refused ? [': ', refused.detail, link] : ': stored'));
    while (results.childElementCount > MAX_LINES) results.lastElementChild.remove();
  };

  const send = async files => {
    const form = new FormData();
    form.append('class_name', $('#upload-class').value);
    form.append('split', $('#upload-split').value);
    for (const file of files) form.append('files', file);
    const answer = await api(`${path}/images`, {method: 'POST', form});
    answer.files.forEach(result => tell(files[result.index], result));
    return answer.num_accepted;
  };

  const upload = async files => {
    if (isBusy) return;
    isBusy = true;
    let stored = 0;
    for (let from = 0; from < files.length; from += FILES_AT_ONCE) {
      const part = files.slice(from, from + FILES_AT_ONCE);
      fill(line, `${from} of ${files.length} files sent …`);
      try {
        stored += await send(part);
      } catch (error) {
        part.forEach(file => tell(file, {refused: {detail: error.detail || error.message}}));
        if (![413, 422].includes(error.status)) break;
      }
    }
    fill(line, `${stored} of ${files.length} files were stored.`);
    isBusy = false;
    if (stored) onStored();
  };

  $('#upload').replaceChildren(dropZone({label: 'Upload PNG, JPEG or WebP files.', onFiles: upload}));
}
