// Signing in: a key is tried, and kept for this tab if the node takes it.

import {api, clearKey, getKey, setKey} from './api.js';
import {$, whenBack} from './dom.js';

const form = $('#form');
const problem = $('#problem');

/** The page to go to: one of the console's own. */
function next() {
  const asked = new URLSearchParams(location.search).get('next') || '/ui';
  const url = new URL(asked, location.origin);
  return url.origin === location.origin && /^\/ui(\/|$)/.test(url.pathname) ? url.pathname + url.search : '/ui';
}

function tell(text) {
  problem.textContent = text;
  problem.hidden = !text;
  form.elements.key.setAttribute('aria-invalid', String(Boolean(text)));
}

form.addEventListener('submit', async event => {
  event.preventDefault();
  const key = form.elements.key.value.trim();
  tell('');
  if (!/^[\x21-\x7e]+$/.test(key)) {
    tell('A key consists of letters, digits and signs without spaces.');
    return;
  }
  const before = getKey();
  setKey(key);
  try {
    await api('/jobs?limit=1');
    location.assign(next());
  } catch (error) {
    if (before) setKey(before);
    else clearKey();
    tell(error.status === 401 ? 'The node does not know this key, or it has expired.' : error.detail);
    form.elements.key.focus();
  }
});

$('#out').addEventListener('click', () => {
  clearKey();
  location.reload();
});

async function begin() {
  if (getKey()) {
    $('#whether').textContent = 'You are signed in with a key in this tab.';
    $('#out').hidden = false;
    return;
  }
  try {
    await api('/jobs?limit=1');
    $('#whether').textContent = 'This node answers without a key. A key is only needed for what others may not do.';
  } catch (error) {
    $('#whether').textContent = error.status === 401 ? 'This node needs a key.' : error.detail;
    if (error.status === 0) whenBack(begin);
  }
}

// Nobody can type a key before something checks it.
for (const field of form.elements) field.disabled = false;
begin();
