// The page of the node: models, engine, jobs with their controls, limits.

import {api, getKey} from './api.js';
import {$, fill, h, state} from './dom.js';
import {bytes, duration, when} from './format.js';
import {badge, isActive, jobButtons, progressBar} from './jobs.js';
import {startKeys} from './keys.js';
import {readSeries} from './series.js';
import {Pages} from './paging.js';

const REFRESH_MS = 3_000;
const filters = $('#filters');

// --- Models and limits

async function loadNode() {
  try {
    const [node, ready] = await Promise.all([api('/capabilities'), readiness()]);
    fill($('#ready'), h('p', {class: 'row'}, badge(ready.ok ? 'ready' : 'failed'), ` Foxhound ${node.version}, pack ${node.pack.name} on ${node.device} (${node.dtype})`),
      ready.ok ? null : h('p', {class: 'error wrap'}, ready.detail));
    fill($('#models'), modelTable(node.models));
    $('#models').removeAttribute('aria-busy');
    fill($('#limits'), h('dl', {class: 'facts'}, Object.entries(node.limits).map(([name, value]) => [h('dt', {}, name.replaceAll('_', ' ')), h('dd', {}, value.toLocaleString('en'))])));
  } catch (error) {
    if (!$('#models').querySelector('table')) state($('#models'), 'failed', error, loadNode);
  }
}

/** `/readyz` says 503 where a model is missing, which is no failure of the page. */
async function readiness() {
  const response = await fetch('/readyz', {credentials: 'omit'});
  const body = await response.json();
  return {ok: response.ok, detail: body.detail};
}

function modelTable(models) {
  return h('div', {class: 'scroll'}, h('table', {},
    h('thead', {}, h('tr', {}, ['Model', 'State', 'A new request waits', 'Note'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, Object.entries(models).map(([name, one]) => h('tr', {},
      h('td', {}, name), h('td', {}, badge(one.state)), h('td', {}, one.expected_wait_s === null ? '–' : duration(one.expected_wait_s)),
      h('td', {class: 'wrap'}, one.detail || one.note || ''))))));
}

async function showBackbones() {
  const box = $('#backbone-list');
  if (!$('#backbones').open) return;
  state(box, 'loading');
  try {
    const {items} = await api('/backbones');
    box.removeAttribute('aria-busy');
    fill(box, h('div', {class: 'scroll'}, h('table', {},
      h('thead', {}, h('tr', {}, ['Backbone', 'State', 'Trained on', 'Input', 'Features', 'Size', 'Images/s'].map(name => h('th', {scope: 'col'}, name)))),
      h('tbody', {}, items.map(one => h('tr', {}, h('td', {}, one.name), h('td', {}, badge(one.state), one.detail && h('p', {class: 'error small wrap'}, one.detail)),
        [one.trained_on, one.input_size && `${one.input_size} px`, one.num_features, one.num_bytes && bytes(one.num_bytes), one.images_per_s?.toFixed(0)]
          .map(text => h('td', {}, text ?? '–'))))))));
  } catch (error) {
    state(box, 'failed', error, showBackbones);
  }
}

// --- Engine

async function loadEngine() {
  let response;
  try {
    response = await fetch('/metrics', {credentials: 'omit', headers: getKey() ? {Authorization: `Bearer ${getKey()}`} : {}});
  } catch {
    if (!$('#engine').childElementCount) state($('#engine'), 'offline');
    return;
  }
  if (response.ok) showEngine(readSeries(await response.text()));
  else fill($('#engine'), h('p', {class: 'muted'}, response.status === 401 || response.status === 403
    ? 'The figures of the engine need a key with the scope admin.' : `The figures of the engine are not there (${response.status}).`));
}

function showEngine(series) {
  const total = (name, labels) => series.sum(name, labels);
  const used = total('foxhound_engine_rows_total', {kind: 'used'});
  const padding = total('foxhound_engine_rows_total', {kind: 'padding'});
  const tally = (name, value, note = '') => h('div', {class: 'tally'}, h('span', {class: 'muted small'}, name), h('b', {}, value), h('span', {class: 'muted small'}, note));
  fill($('#engine'), h('div', {class: 'tallies'},
    tally('Requests in the engine', total('foxhound_engine_requests')),
    tally('Waiting', total('foxhound_engine_queue_requests'), `oldest ${duration(series.max('foxhound_engine_queue_oldest_seconds'))}`),
    tally('Rows computed', used.toLocaleString('en'), used ? `${(100 * used / (used + padding)).toFixed(0)} % of all, the rest is padding` : ''),
    tally('Live workers', total('foxhound_workers', {state: 'live'})),
    tally('Free on the disk', bytes(total('foxhound_storage_free_bytes'))),
    tally('Memory', bytes(total('foxhound_process_resident_memory_bytes')))),
  stepTable(series));
}

function stepTable(series) {
  const counts = series.groups('foxhound_engine_step_seconds_count').filter(one => one.value > 0);
  if (!counts.length) return h('p', {class: 'muted'}, 'No step was computed since the node started.');
  const mean = labels => series.sum('foxhound_engine_step_seconds_sum', labels) / series.sum('foxhound_engine_step_seconds_count', labels);
  return h('div', {class: 'scroll'}, h('table', {},
    h('caption', {class: 'muted small'}, 'Mean time of a step since the node started, by model and rows.'),
    h('thead', {}, h('tr', {}, h('th', {scope: 'col'}, 'Model'), ['Rows up to', 'Steps', 'Mean, ms'].map(name => h('th', {scope: 'col', class: 'number'}, name)))),
    h('tbody', {}, counts.map(({labels, value}) => h('tr', {}, h('td', {}, labels.model),
      [labels.rows, value.toLocaleString('en'), (1_000 * mean(labels)).toFixed(1)].map(text => h('td', {class: 'number'}, text)))))));
}

// --- Jobs

const pages = {generate: null, dataset: job => job.result && `/ui/datasets/${job.result.dataset_id}`, train: job => `/ui/train-jobs/${job.id}`};

const jobs = new Pages({
  into: $('#jobs'), path: () => '/jobs', limit: 20, show: showJobs, params: () => Object.fromEntries(new FormData(filters)),
  empty: () => [...new FormData(filters).values()].some(Boolean) ? 'No job matches.' : 'There are no jobs yet.',
});

function showJobs(items, _page, into) {
  const focused = document.activeElement?.dataset?.action && document.activeElement.closest('tr')?.dataset.id;
  const action = document.activeElement?.dataset?.action;
  fill(into, h('div', {class: 'scroll'}, h('table', {class: 'list-table'},
    h('thead', {}, h('tr', {}, ['Kind', 'Status', 'Progress', 'Created', 'Controls'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, items.map(jobRow)))));
  if (focused) into.querySelector(`tr[data-id="${focused}"] [data-action="${action}"]`)?.focus();
}

function jobRow(job) {
  const target = pages[job.kind]?.(job);
  return h('tr', {dataset: {id: job.id}},
    h('td', {}, target ? h('a', {href: target}, job.kind) : job.kind), h('td', {}, badge(job.status)),
    h('td', {}, isActive(job) ? progressBar(job.progress) : `${job.progress.done} of ${job.progress.total} ${job.progress.unit}`,
      job.error ? h('p', {class: 'error small wrap'}, job.error.detail || job.error.title) : null),
    h('td', {}, when(job.created_at)),
    h('td', {}, h('div', {class: 'row'}, jobButtons(job, () => jobs.reload({quietly: true})))));
}

filters.addEventListener('change', () => jobs.load());
filters.addEventListener('submit', event => event.preventDefault());

function refresh() {
  if (document.hidden) return;
  loadNode();
  loadEngine();
  jobs.reload({quietly: true});
}

state($('#models'), 'loading');
startKeys($('#keys-card'), $('#keys'));
loadNode();
loadEngine();
jobs.load();
$('#backbones').addEventListener('toggle', showBackbones);
setInterval(refresh, REFRESH_MS);
