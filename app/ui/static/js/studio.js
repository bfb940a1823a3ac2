// The Studio: make images, follow them, and go on from what was made.

import {api, getKey} from './api.js';
import {codeFor} from './code_samples.js';
import {$, $$, fill, h, state, toast, whenBack} from './dom.js';
import {markAll, markOne, unmark} from './faults.js';
import {fileLink} from './files.js';
import {percent} from './format.js';
import {capabilities, generateFields} from './node_facts.js';
import {Run} from './run.js';
import {SettingsForm, randomSeed} from './settings_form.js';
import {thumbnail} from './thumbnails.js';

const MAX_SHOWN = 24;
const PREVIEWS = 12;
// What an answer says of a setting that was not given; a call leaves it out.
const UNSAID = [null, undefined, '', false, 0, 'exact', 'plain', 'png'];

const form = new SettingsForm($('#form'));
const results = $('#results');
const problem = $('#problem');
let fields = null;
let run = null;
let language = 'curl';

form.onChange = () => {
  accept();
  if ($('#copies').open) showCode(form.body());
};

function showCode(body) {
  $('#code').textContent = codeFor(language, body, {origin: location.origin, isKeyed: Boolean(getKey())});
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    toast('Copied.');
  } catch {
    toast('The browser does not allow copying here. Select the text instead.', 'error');
  }
}

/** Say what is wrong, in a summary; each fault is also at its field. */
function refuse(lines) {
  fill(problem, lines.map(line => h('p', {}, line)));
  problem.hidden = false;
}

function accept() {
  problem.hidden = true;
  unmark(form.form);
}

function show(isRunning) {
  $('#go').disabled = isRunning;
  $('#cancel').hidden = !isRunning;
}

async function make() {
  if (run) return;
  accept();
  const fault = form.fault();
  if (fault) {
    refuse([markOne(fault)]);
    return;
  }
  const body = form.body();
  const sent = fields?.has('preview') ? {...body, preview: Math.max(1, Math.round(form.steps / PREVIEWS))} : body;
  run = new Run($('#run'), sent);
  show(true);
  try {
    const made = await run.finish();
    if ($('.state', results)) results.replaceChildren();
    results.prepend(article(made, body));
    while (results.childElementCount > MAX_SHOWN) results.lastElementChild.remove();
    form.nextSeed();
  } catch (error) {
    if (error.name === 'AbortError') toast('Cancelled.');
    else refuse(markAll(error, pointer => form.elementOf(pointer)));
  } finally {
    run = null;
    show(false);
  }
}

/** Return the call that made a generation, as far as its record says it; pictures that came with the call are not kept. */
function callOf({parameters}) {
  const {init_image: init, mask, strength, mask_blur: blur, mask_invert: invert, ...others} = parameters;
  const call = {...others};
  if (init?.image_id && (!mask || mask.image_id)) {
    Object.assign(call, {init_image: {image_id: init.image_id}, strength});
    if (mask) Object.assign(call, {mask: {image_id: mask.image_id}, mask_blur: blur, mask_invert: invert});
  }
  return Object.fromEntries(Object.entries(call).filter(([, value]) => !UNSAID.includes(value) && value.length !== 0));
}

/** Return the settings of a generation in words. */
function summary({parameters}, seconds) {
  const {speed, init_image: init, mask} = parameters;
  return [`seed ${parameters.seed}`, `${parameters.num_inference_steps} steps`, `guidance ${parameters.guidance_scale}`, parameters.scheduler,
    `${parameters.width} × ${parameters.height}`, speed !== 'exact' && speed, init && `from an image, strength ${parameters.strength}`, mask && 'with a mask',
    parameters.best_of && `best of ${parameters.best_of}`, parameters.prompt_syntax !== 'plain' && parameters.prompt_syntax,
    parameters.clip_skip && `CLIP skip ${parameters.clip_skip}`, (parameters.loras || []).map(({name, weight}) => `${name} × ${weight}`).join(', '), seconds].filter(Boolean).join(' · ');
}

function article(made, body) {
  const {parameters, timings, images, warnings} = made;
  const seconds = made.elapsed_ms ? `${(made.elapsed_ms / 1_000).toFixed(1)} s` : `${((timings.queued_ms + timings.denoising_ms + timings.decoding_ms) / 1_000).toFixed(1)} s`;
  const call = body || callOf(made);
  return h('article', {class: 'card stack'},
    h('h2', {class: 'wrap'}, parameters.prompt),
    h('p', {class: 'muted small wrap'}, summary(made, seconds)),
    (warnings || []).map(warning => h('p', {class: 'badge warn'}, warning.detail)),
    h('div', {class: 'grid made'}, images.map(image => picture(image, made))),
    h('div', {class: 'row'},
      h('button', {type: 'button', onclick: async () => {
        await form.adopt(parameters);
        form.set({seed: randomSeed()});
        make();
      }}, 'Again with another seed'),
      h('button', {type: 'button', onclick: async () => {
        await form.adopt(parameters);
        form.set({seed: parameters.seed});
        window.scrollTo({top: 0});
      }}, 'Use these settings'),
      made.grid && fileLink(made.grid.url, 'Sheet of all images', {opens: true, name: `${made.id}.png`}),
      ['curl', 'Python', 'TypeScript'].map(name => h('button', {type: 'button', onclick: () =>
        copy(codeFor(name.toLowerCase(), {...call, seed: parameters.seed}, {origin: location.origin, isKeyed: Boolean(getKey())}))}, `Copy as ${name}`))));
}

function picture(image, made) {
  const shown = thumbnail(image, 512, `${made.parameters.prompt}, seed ${image.seed}`);
  shown.draggable = true;
  shown.addEventListener('dragstart', event => event.dataTransfer.setData('text/x-foxhound-image', image.id));
  return h('figure', {class: 'stack tight'},
    h('a', {href: `/ui/images/${image.id}`}, shown),
    h('figcaption', {class: 'row small'}, h('span', {class: 'muted'}, `seed ${image.seed}`),
      form.init.isOffered && h('button', {type: 'button', class: 'link', onclick: () => form.init.startFrom(image.id)}, 'Use as init image')),
    judged(image));
}

/** Return what CLIP says of an image, where it was asked. */
function judged({clip_score: score, label_probabilities: labels}) {
  if (score === null || score === undefined) return null;
  const best = [...(labels || [])].sort((a, b) => b.probability - a.probability).slice(0, 3);
  const said = [`CLIP score ${score.toFixed(1)}`, ...best.map(({label, probability}) => `${label} ${percent(probability, 0)}`)];
  return h('p', {class: 'muted small wrap'}, said.join(' · '));
}

/** Offer what the node can do. */
async function offer() {
  try {
    form.offer(await capabilities());
    fields = await generateFields();
    problem.hidden = true;
  } catch (error) {
    refuse([error.detail || error.message]);
    if (error.status === 0) whenBack(offer);
  }
}

async function begin() {
  await offer();
  await takeOver();
  await showNewest();
}

/** Take the settings, or the image to start from, that another page names in the address. */
async function takeOver() {
  const asked = new URLSearchParams(location.search);
  const from = asked.get('from');
  if (from) {
    const {lineage, generation_id: id} = await api(`/images/${encodeURIComponent(from)}/metadata`).catch(() => ({lineage: null}));
    // A chosen one of several candidates comes again from the request for all of them.
    const whole = lineage?.best_of && id ? (await api(`/generations/${id}`).catch(() => null))?.parameters : null;
    if (lineage) await form.adopt(whole || lineage);
    if (lineage) form.set({seed: (whole || lineage).seed});
  }
  if (asked.get('init') && form.init.isOffered) await form.init.startFrom(asked.get('init'));
}

async function showNewest() {
  state(results, 'loading');
  try {
    const {items} = await api('/generations?limit=6');
    if (items.length) fill(results, items.map(made => article(made)));
    else state(results, 'empty', 'Write a prompt and press “Make images”. The results appear here.');
    results.removeAttribute('aria-busy');
  } catch (error) {
    state(results, 'failed', error, showNewest);
  }
}

form.form.addEventListener('submit', event => {
  event.preventDefault();
  make();
});
form.form.addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    make();
  }
});
document.addEventListener('keydown', event => {
  if (event.key === 'Escape' && run && !$('dialog[open]')) run.cancel();
});
$('#cancel').addEventListener('click', () => run?.cancel());
$('#copies').addEventListener('toggle', () => showCode(form.body()));
for (const button of $$('[data-copy]')) {
  button.addEventListener('click', () => {
    language = button.dataset.copy;
    showCode(form.body());
    copy($('#code').textContent);
  });
}
begin();
