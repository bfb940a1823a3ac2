// API keys and their quotas on the page of the node: for keys with the scope admin.

import {api, getKey} from './api.js';
import {fill, h, toast, whenBack} from './dom.js';
import {clearFaults, showFaults} from './files.js';
import {bytes, count, when} from './format.js';
import {badge} from './jobs.js';
import {Pages} from './paging.js';

const SCOPES = ['read', 'generate', 'datasets', 'train', 'admin'];
const LIMITS = {
  requests_per_minute: 'Requests a minute',
  concurrent_requests: 'Requests at once',
  concurrent_images: 'Images at once',
  pixel_steps_per_day: 'Pixel-steps a day',
  stored_mb: 'Stored, MB',
};

let pages;

/** Show the keys in an element whose section is hidden; it stays hidden without the scope `admin`. */
export async function startKeys(section, root) {
  let page;
  try {
    page = await api('/keys?limit=1', {isQuiet: true});
  } catch (error) {
    if (error.status === 0) whenBack(() => startKeys(section, root));
    return;
  }
  section.hidden = false;
  if (!getKey() && !page.items.length) {
    fill(root, h('p', {}, 'This node has no keys: every program on its machine may do everything. The first key is created there, with the scope admin: ',
      h('code', {}, 'foxhound keys create NAME --scope admin'), '. Keys and quotas are then managed here.'));
    return;
  }
  const made = h('div', {class: 'stack', role: 'status'});
  const list = h('div');
  fill(root, createForm(made), made, list);
  pages = new Pages({into: list, path: () => '/keys', limit: 20, show: showKeys, empty: 'There are no keys.'});
  await pages.load();
}

function limitFields(limits = {}) {
  return Object.entries(LIMITS).map(([name, label]) => h('label', {}, `${label} `,
    h('input', {type: 'number', name, min: name.endsWith('_day') || name.endsWith('_mb') ? 0 : 1, step: 1, value: limits[name] ?? '', placeholder: 'as the node'})));
}

function limitsOf(form) {
  return Object.fromEntries(Object.keys(LIMITS).map(name => [name, form.elements[name].value.trim() === '' ? null : Number(form.elements[name].value)]));
}

function createForm(made) {
  const faults = h('div', {role: 'alert'});
  const form = h('form', {class: 'stack', method: 'dialog', 'aria-label': 'Create a key', autocomplete: 'off', novalidate: true},
    h('div', {class: 'fields'},
      h('label', {}, 'Name ', h('input', {name: 'name', maxLength: 63, required: true, spellcheck: false})),
      h('label', {}, 'Expires after, days ', h('input', {name: 'days', type: 'number', min: 1, max: 3650, placeholder: 'never'})),
      h('fieldset', {class: 'row'}, h('legend', {class: 'small'}, 'Scopes'), SCOPES.map(scope => h('label', {class: 'check'},
        h('input', {type: 'checkbox', name: 'scopes', value: scope, checked: scope === 'read' || scope === 'generate'}), ` ${scope}`)))),
    h('details', {}, h('summary', {}, 'Quotas'), h('div', {class: 'fields'}, limitFields())),
    faults, h('div', {class: 'row'}, h('button', {class: 'primary'}, 'Create the key')));
  form.addEventListener('submit', async event => {
    event.preventDefault();
    clearFaults(form);
    fill(faults);
    const days = form.elements.days.value.trim();
    const body = {name: form.elements.name.value.trim(), scopes: new FormData(form).getAll('scopes'), limits: limitsOf(form), ...(days ? {expires_in_days: Number(days)} : {})};
    try {
      showMade(made, await api('/keys', {method: 'POST', body}));
      form.reset();
      pages.load();
    } catch (error) {
      showFaults(faults, error, pointer => form.elements[pointer.split('/').at(-1)] ?? null);
    }
  });
  return form;
}

/** Show a new key, this once. */
function showMade(box, {name, key}) {
  const text = h('code', {class: 'wrap', id: 'new-key', tabIndex: 0}, key);
  fill(box, h('div', {class: 'card stack'},
    h('p', {}, `The key ${name}. Copy it now: it is not shown again.`), text,
    h('div', {class: 'row'},
      h('button', {type: 'button', onclick: () => copy(key)}, 'Copy'),
      h('button', {type: 'button', onclick: () => fill(box)}, 'I have it'))));
  text.focus();
}

async function copy(key) {
  try {
    await navigator.clipboard.writeText(key);
    toast('Copied.');
  } catch {
    toast('The browser does not allow copying here. Select the key instead.', 'error');
  }
}

function showKeys(items, _page, into) {
  fill(into, h('div', {class: 'scroll'}, h('table', {class: 'list-table'},
    h('thead', {}, h('tr', {}, ['Name', 'Key', 'Scopes', 'State', 'Expires', 'Last used', 'Controls'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, items.map(keyRow)))));
}

function keyRow(key) {
  const isActive = key.state !== 'revoked';
  return h('tr', {dataset: {id: key.id}},
    h('td', {class: 'wrap'}, key.name), h('td', {}, h('code', {}, `${key.prefix}…`)), h('td', {}, key.scopes.join(', ')),
    h('td', {}, badge(key.state)), h('td', {}, key.expires_at ? when(key.expires_at) : 'never'), h('td', {}, key.last_used_on || 'never'),
    h('td', {}, isActive && h('div', {class: 'row'},
      h('button', {type: 'button', 'aria-label': `Quotas of ${key.name}`, onclick: () => openQuotas(key)}, 'Quotas'),
      h('button', {type: 'button', class: 'danger', 'aria-label': `Revoke ${key.name}`, onclick: () => revoke(key)}, 'Revoke'))));
}

/** Ask in a dialog; returns it, open. `content` gets the function that closes it. */
function dialog(label, content) {
  const box = h('dialog', {'aria-label': label});
  box.append(content(() => box.close()));
  box.addEventListener('close', () => box.remove());
  document.body.append(box);
  box.showModal();
}

function revoke(key) {
  dialog('Revoke', close => {
    const faults = h('div', {role: 'alert'});
    return h('div', {class: 'stack'}, h('p', {class: 'wrap'}, `Revoke the key ${key.name}? Requests with it are refused within seconds, and nothing brings it back.`), faults,
      h('div', {class: 'row'},
        h('button', {type: 'button', class: 'danger', onclick: async () => {
          try {
            await api(`/keys/${key.id}`, {method: 'DELETE'});
            close();
            pages.reload({quietly: true});
          } catch (error) {
            showFaults(faults, error);
          }
        }}, 'Revoke'),
        h('button', {type: 'button', onclick: close}, 'Keep')));
  });
}

async function openQuotas(key) {
  let read;
  try {
    read = await api(`/keys/${key.id}`);
  } catch (error) {
    toast(error.detail, 'error');
    return;
  }
  const {limits, applied_limits: applied, use} = read;
  const bound = (value, text) => value === null ? 'no bound' : text(value);
  dialog(`Quotas of ${key.name}`, close => {
    const faults = h('div', {role: 'alert'});
    const form = h('form', {class: 'stack', method: 'dialog', novalidate: true},
      h('h2', {class: 'wrap'}, `Quotas of ${key.name}`),
      h('dl', {class: 'facts'},
        h('dt', {}, 'Today'), h('dd', {}, `${count(use.pixel_steps_today, 'pixel-step')}, ${bound(applied.pixel_steps_per_day, most => `of ${most.toLocaleString('en')}`)}`),
        h('dt', {}, 'Stored'), h('dd', {}, `${bytes(use.stored_bytes)}, ${bound(applied.stored_mb, most => `of ${most.toLocaleString('en')} MB`)}`)),
      h('div', {class: 'fields'}, limitFields(limits)),
      h('p', {class: 'muted small'}, 'Empty: the setting of each node. Nodes apply a change within 5 seconds.'), faults,
      h('div', {class: 'row'}, h('button', {class: 'primary'}, 'Save'), h('button', {type: 'button', onclick: close}, 'Close')));
    form.addEventListener('submit', async event => {
      event.preventDefault();
      clearFaults(form);
      try {
        await api(`/keys/${key.id}`, {method: 'PATCH', body: {limits: limitsOf(form)}});
        close();
        toast('Saved.');
        pages.reload({quietly: true});
      } catch (error) {
        showFaults(faults, error, pointer => form.elements[pointer.split('/').at(-1)] ?? null);
      }
    });
    return form;
  });
}
