// The page of all datasets: the list, and the form that shows what it would make while it is filled in.

import {api} from './api.js';
import {$, $$, fill, h, state} from './dom.js';
import {clearFaults, showFaults} from './files.js';
import {count, duration, newKey, when} from './format.js';
import {badge} from './jobs.js';
import {Pages} from './paging.js';

const form = $('#form');
const plan = $('#plan');
const classes = $('#classes');
const create = $('#create');
const DEBOUNCE_MS = 350;

// --- The list

const filters = $('#filters');
const list = new Pages({
  into: $('#list'),
  path: () => '/datasets',
  params: () => Object.fromEntries(new FormData(filters)),
  show: showDatasets,
  empty: () => [...new FormData(filters).values()].some(Boolean) ? 'No dataset matches.' : 'There are no datasets yet. Make one with "New dataset".',
});

function showDatasets(items, _page, into) {
  fill(into, h('div', {class: 'scroll'}, h('table', {class: 'list-table'},
    h('thead', {}, h('tr', {}, ['Name', 'Status', 'Images', 'Classes', 'Created'].map(name => h('th', {scope: 'col', class: name === 'Images' ? 'number' : ''}, name)))),
    h('tbody', {}, items.map(one => h('tr', {},
      h('td', {class: 'wrap'}, h('a', {href: `/ui/datasets/${one.id}`}, one.name)),
      h('td', {}, badge(one.status)),
      h('td', {class: 'number'}, one.progress.total > one.num_images ? `${one.num_images} of ${one.progress.total}` : one.num_images),
      h('td', {class: 'wrap'}, classNames(one.classes)),
      h('td', {}, when(one.created_at))))))));
}

function classNames(entries) {
  const more = entries.length - 6;
  return entries.slice(0, 6).map(one => one.name).join(', ') + (more > 0 ? ` and ${more} more` : '');
}

filters.addEventListener('submit', event => event.preventDefault());
filters.addEventListener('input', debounced(() => list.load()));

// --- The form

function addClass(focus = false) {
  const number = classes.childElementCount + 1;
  const row = h('div', {class: 'class-row', role: 'group', 'aria-label': `Class ${number}`},
    h('label', {}, 'Class name ', h('input', {class: 'class-name', maxLength: 200, autocomplete: 'off'})),
    h('label', {}, 'Prompts, one a line ', h('textarea', {class: 'class-prompts', rows: 2, placeholder: 'a watercolor painting of a red fox'})),
    h('button', {type: 'button', onclick: () => removeClass(row)}, 'Remove'));
  classes.append(row);
  if (focus) row.querySelector('input').focus();
}

function removeClass(row) {
  const next = row.nextElementSibling || row.previousElementSibling;
  row.remove();
  $$('.class-row', classes).forEach((one, index) => one.setAttribute('aria-label', `Class ${index + 1}`));
  (next?.querySelector('input') || $('#add-class')).focus();
  changed();
}

const number = name => form.elements[name].value === '' ? undefined : Number(form.elements[name].value);
const text = name => form.elements[name].value.trim() || undefined;

function readVariables() {
  const lines = form.elements.variables.value.split('\n').filter(line => line.includes(':'));
  const pairs = lines.map(line => [line.slice(0, line.indexOf(':')).trim(), line.slice(line.indexOf(':') + 1).split('|').map(value => value.trim())]);
  return pairs.length ? Object.fromEntries(pairs) : undefined;
}

const filledRows = () => $$('.class-row', classes).filter(row => [...row.querySelectorAll('input, textarea')].some(one => one.value.trim()));

function readForm() {
  const generation = {};
  for (const name of ['num_inference_steps', 'guidance_scale', 'width', 'height']) generation[name] = number(name);
  for (const name of ['speed', 'scheduler']) generation[name] = text(name);
  const rows = filledRows().map(row => ({
    name: row.querySelector('.class-name').value.trim(),
    prompts: row.querySelector('.class-prompts').value.split('\n').map(line => line.trim()).filter(Boolean),
  }));
  return {
    name: text('name'), preset: text('preset'), seed: number('seed'), classes: rows,
    train_per_class: number('train_per_class'), validation_per_class: number('validation_per_class'),
    test_per_class: number('test_per_class'), variables: readVariables(),
    generation: Object.values(generation).some(value => value !== undefined) ? generation : undefined,
    filter: form.elements.filter.checked ? {} : undefined,
  };
}

function elementOf(pointer) {
  const [, place, index, field] = pointer.split('/');
  if (place === 'classes' && index !== undefined) {
    const row = filledRows()[index];
    return row?.querySelector(field === 'prompts' ? 'textarea' : 'input');
  }
  return form.elements[place === 'generation' ? index : place] || null;
}

let dryRun = null;
const changed = debounced(showPlan, () => {
  create.disabled = true;
  dryRun?.abort();
});

async function showPlan() {
  const body = readForm();
  if (!body.name || body.classes.length < 2) return;
  const request = dryRun = new AbortController();
  plan.setAttribute('aria-busy', 'true');
  try {
    const planned = await api('/datasets?dry_run=true', {method: 'POST', body, signal: request.signal});
    clearFaults(form);
    describePlan(planned);
    create.disabled = false;
  } catch (error) {
    if (error.name === 'AbortError') return;
    clearFaults(form);
    if ([409, 422].includes(error.status)) showFaults(plan, error, elementOf);
    else state(plan, 'failed', error, showPlan);
  }
  plan.removeAttribute('aria-busy');
}

function describePlan(planned) {
  const time = planned.estimated_seconds === null ? 'unknown time' : `about ${duration(planned.estimated_seconds)}`;
  fill(plan,
    h('p', {}, h('b', {id: 'plan-count'}, count(planned.num_images, 'image')), `, ${time}. `, h('span', {class: 'muted small'}, planned.estimate)),
    planned.samples.length ? h('h3', {}, 'First prompts') : null,
    h('ul', {class: 'faults wrap'}, planned.samples.slice(0, 8).map(one => h('li', {}, h('b', {}, one.class_name), ' ',
      h('span', {class: 'muted small'}, one.split), ` ${one.prompt}`))),
    planned.assumptions.length ? h('details', {}, h('summary', {}, 'What the estimate assumes'), h('ul', {}, planned.assumptions.map(line => h('li', {}, line)))) : null);
}

let submission = newKey();
form.addEventListener('submit', async event => {
  event.preventDefault();
  create.disabled = true;
  try {
    const made = await api('/datasets', {method: 'POST', body: readForm(), headers: {'Idempotency-Key': submission}});
    location.assign(`/ui/datasets/${made.id}`);
  } catch (error) {
    showFaults(plan, error, elementOf);
    submission = newKey();
    create.disabled = false;
  }
});
form.addEventListener('input', changed);
$('#add-class').addEventListener('click', () => addClass(true));

$('#new').addEventListener('click', () => openMaker($('#maker').hidden));

function openMaker(open) {
  $('#maker').hidden = !open;
  $('#new').setAttribute('aria-expanded', String(open));
  if (open) form.elements.name.focus();
}

async function offerChoices() {
  try {
    const node = await api('/capabilities');
    form.elements.speed.append(...node.speeds.map(one => h('option', {}, one.name)));
    form.elements.scheduler.append(...node.noise_schedulers.map(one => h('option', {}, one)));
  } catch {
    // The defaults are offered; the list tells what is wrong.
  }
}

function debounced(call, at_once = () => {}) {
  let timer;
  return () => {
    at_once();
    clearTimeout(timer);
    timer = setTimeout(call, DEBOUNCE_MS);
  };
}

addClass();
addClass();
list.load();
offerChoices();
if (location.hash === '#new') openMaker(true);
