// The page of training: the form that starts a train job, the jobs, the models.

import {api} from './api.js';
import {$, fill, h, state} from './dom.js';
import {clearFaults, showFaults} from './files.js';
import {interval, newKey, percent, when} from './format.js';
import {badge} from './jobs.js';
import {Pages} from './paging.js';

const form = $('#form');
const faults = $('#faults');
const REFRESH_MS = 5_000;
const wanted = new URLSearchParams(location.search).get('dataset');

// --- Choices

async function offerDatasets() {
  const select = form.elements.dataset_id;
  const [page, own] = await Promise.all([
    api('/datasets?limit=100'), wanted ? api(`/datasets/${encodeURIComponent(wanted)}`).catch(() => null) : null]);
  const trainable = page.items.filter(one => ['ready', 'incomplete', 'failed', 'cancelled'].includes(one.status) && one.num_images);
  if (own && !trainable.some(one => one.id === own.id)) trainable.unshift(own);
  fill(select, trainable.map(one => h('option', {value: one.id, selected: one.id === own?.id},
    `${one.name} (${one.num_images} images, ${one.classes.length} classes${one.status === 'ready' ? '' : `, ${one.status}`})`)));
  if (!trainable.length) fill($('#choices'), h('p', {class: 'muted'}, 'There is no dataset to train on yet. ', h('a', {href: '/ui/datasets#new'}, 'Make one'), '.'));
  $('#start').disabled = !trainable.length;
}

async function offerBackbones() {
  const {items} = await api('/backbones');
  form.elements.backbone.append(...items.map(one => h('option', {value: one.name, disabled: one.state === 'failed'},
    [one.name, one.trained_on && `trained on ${one.trained_on}`, one.images_per_s && `${one.images_per_s.toFixed(0)} images/s`, one.state === 'failed' && 'failed'].filter(Boolean).join(', '))));
}

async function offer() {
  try {
    await Promise.all([offerDatasets(), offerBackbones()]);
  } catch (error) {
    state($('#choices'), 'failed', error, () => { fill($('#choices')); offer(); });
  }
}

// --- The form

const value = name => form.elements[name].value.trim();
const number = name => value(name) === '' ? undefined : Number(value(name));

function readForm() {
  const body = {dataset_id: value('dataset_id'), name: value('name') || undefined, backbone: value('backbone') || undefined,
    seed: number('seed'), allow_incomplete: form.elements.allow_incomplete.checked || undefined};
  if (value('recipe') === 'from_prompts') return {...body, preset: 'from_prompts', backbone: undefined};
  const head = {solver: value('solver'), lr: number('lr')};
  return {
    ...body, epochs: number('epochs'), batch_size: number('batch_size'),
    head: head.solver ? head : undefined, fine_tune: value('fine_tune') || undefined,
    optimizer: head.solver || head.lr === undefined ? undefined : {lr: head.lr},
    validation: number('validation') ? {fraction: number('validation')} : undefined,
    early_stopping: number('patience') ? {patience: number('patience')} : undefined,
    augment: form.elements.flip.checked || number('crops') ? {flip: form.elements.flip.checked, crops: number('crops') || 0} : undefined,
  };
}

function elementOf(pointer) {
  const [, first, second] = pointer.split('/');
  const names = {validation: 'validation', early_stopping: 'patience', augment: 'crops'};
  return form.elements[names[first]] || form.elements[second] || form.elements[first] || null;
}

form.elements.recipe.addEventListener('change', () => {
  $('#own-settings').hidden = value('recipe') === 'from_prompts';
});

form.addEventListener('submit', async event => {
  event.preventDefault();
  clearFaults(form);
  fill(faults);
  $('#start').disabled = true;
  try {
    const job = await api('/train-jobs', {method: 'POST', body: readForm(), headers: {'Idempotency-Key': newKey()}});
    location.assign(`/ui/train-jobs/${job.id}`);
  } catch (error) {
    showFaults(faults, error, elementOf);
    $('#start').disabled = false;
  }
});

// --- Jobs

const jobs = new Pages({
  into: $('#jobs'), path: () => '/train-jobs', limit: 10, show: showJobs,
  params: () => ({status: $('#job-status').value}),
  empty: () => $('#job-status').value ? 'No train job matches.' : 'Nothing was trained yet. Start with the form above.',
});

function showJobs(items, _page, into) {
  fill(into, h('div', {class: 'scroll'}, h('table', {class: 'list-table'},
    h('thead', {}, h('tr', {}, ['Name', 'Status', 'Progress', 'Test accuracy', 'Created'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, items.map(job => h('tr', {},
      h('td', {class: 'wrap'}, h('a', {href: `/ui/train-jobs/${job.id}`}, job.name)), h('td', {}, badge(job.status)),
      h('td', {}, `${job.progress.done} of ${job.progress.total}`),
      h('td', {}, percent(job.last_epoch?.test_accuracy)), h('td', {}, when(job.created_at))))))));
}

// --- Models

const chosen = new Set();
const models = new Pages({into: $('#models'), path: () => '/models', limit: 20, show: showModels, empty: 'There are no models yet.'});

function showModels(items, _page, into) {
  fill(into, h('div', {class: 'scroll'}, h('table', {class: 'list-table'},
    h('thead', {}, h('tr', {}, ['Compare', 'Name', 'Test', 'Classes', 'Backbone', 'Created'].map(name => h('th', {scope: 'col'}, name)))),
    h('tbody', {}, items.map(model => h('tr', {},
      h('td', {}, h('input', {type: 'checkbox', checked: chosen.has(model.id), 'aria-label': `Compare ${model.name}`, onchange: event => choose(model.id, event.target)})),
      h('td', {class: 'wrap'}, h('a', {href: `/ui/models/${model.id}`}, model.name)),
      h('td', {}, model.metrics.test.headline.accuracy ? `${interval(model.metrics.test.headline.accuracy)}, ${model.metrics.test.headline.source}` : '–'),
      h('td', {class: 'wrap'}, classNames(model.classes)), h('td', {class: 'wrap'}, model.backbone), h('td', {}, when(model.created_at))))))));
}

function choose(id, box) {
  if (box.checked) chosen.add(id);
  else chosen.delete(id);
  $('#compare').disabled = chosen.size < 2 || chosen.size > 10;
  $('#compare').textContent = chosen.size ? `Compare ${chosen.size} models` : 'Compare';
}

function classNames(names) {
  return names.slice(0, 6).join(', ') + (names.length > 6 ? ` and ${names.length - 6} more` : '');
}

$('#compare').addEventListener('click', () => location.assign(`/ui/compare?ids=${[...chosen].join(',')}`));
$('#job-status').addEventListener('change', () => jobs.load());

setInterval(() => {
  const isWorking = jobs.items.some(job => ['queued', 'running'].includes(job.status));
  if (isWorking && !document.hidden && !$('#jobs').contains(document.activeElement)) jobs.reload({quietly: true});
}, REFRESH_MS);

offer();
jobs.load();
models.load();
