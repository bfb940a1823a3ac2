// The form of the Studio: its choices, and the request that they stand for. What is hidden is not sent.

import {$} from './dom.js';
import {badNumber} from './faults.js';
import {InitImage} from './init_image.js';
import {MoreSettings, choose, offerChoices} from './more_settings.js';

const PLACE = 'foxhound-studio';
const NUMBERS = ['num_images_per_prompt', 'num_inference_steps', 'guidance_scale', 'width', 'height'];
const CHOICES = ['output_format', 'scheduler', 'speed', 'model'];
const DEFAULTS = {num_images_per_prompt: 1, num_inference_steps: 50, guidance_scale: 7.5, output_format: 'png', speed: 'exact'};
const MORE = ['best_of', 'labels', 'grid', 'prompt_syntax', 'clip_skip', 'timestep_spacing', 'timesteps', 'guidance_interval', 'loras', 'embeddings'];
// What a speed may have values of its own for.
const OF_THE_SPEED = ['num_inference_steps', 'guidance_scale', 'scheduler', 'timestep_spacing', 'timesteps'];
const MAX_SEED = 2 ** 53 - 1;

/** Return a seed at random. */
export function randomSeed() {
  const [high, low] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 2 ** 32 + low;
}

const isShown = element => !element.closest('[hidden]');

export class SettingsForm {
  constructor(form) {
    this.form = form;
    this.facts = null;
    this.isLocked = false;
    this.left = {}; // settings of speeds that are not chosen, by their names; '' of those without own values
    const {prompt, negative_prompt: negative} = form.elements;
    const onChange = () => this.changed();
    this.more = new MoreSettings($('#more'), {prompts: [prompt, negative], onChange});
    this.init = new InitImage(form.elements, onChange);
    this.restore();
    form.addEventListener('input', ({target}) => {
      delete this.wanted[target.name]; // chosen before the node has said what it offers
      onChange();
    });
    $('#lock').addEventListener('click', () => this.lock(!this.isLocked));
    $('#dice').addEventListener('click', () => this.set({seed: randomSeed()}));
  }

  /** Offer what the node has. */
  offer(facts) {
    const {elements} = this.form;
    const {limits} = facts;
    const wanted = this.facts ? {} : this.wanted;
    this.facts = facts;
    this.drawings = Object.values(facts.models).map(one => one.drawing).filter(Boolean);
    this.model = null;
    const others = this.drawings.filter(one => one.fits && !one.is_default).map(one => one.name);
    offerChoices(elements.model, others, 'default');
    elements.model.closest('label').hidden = !others.length;
    elements.prompt.maxLength = elements.negative_prompt.maxLength = limits.prompt_chars;
    elements.num_images_per_prompt.max = elements.best_of.max = limits.num_images_per_prompt;
    this.init.offer(facts.modes);
    if (wanted.model) choose(elements.model, wanted.model);
    this.offerModel();
    for (const name of Object.keys(wanted)) if (elements[name]?.tagName === 'SELECT') choose(elements[name], wanted[name]);
    // Restored settings belong to the speed that they were left with.
    this.speedName ??= wanted.speed && wanted.speed !== elements.speed.value ? wanted.speed : this.ownSpeed()?.name ?? '';
    this.changed();
  }

  /** Offer what the chosen model has. */
  offerModel() {
    const {elements} = this.form;
    const model = this.drawings.find(one => elements.model.value ? one.name === elements.model.value : one.is_default);
    if (model === this.model) return;
    this.model = model;
    offerChoices(elements.speed, model.speeds);
    offerChoices(elements.scheduler, model.noise_schedulers, 'default');
    for (const side of ['width', 'height']) {
      Object.assign(elements[side], {min: model.min_side, max: model.max_side, step: this.facts.limits.side_multiple, placeholder: model.native_size});
    }
    this.more.offer(this.facts, model);
  }

  /** Return the chosen speed, if it has settings of its own; else null. */
  ownSpeed() {
    return this.facts.speeds.find(({name, defaults}) => defaults && name === this.form.elements.speed.value) ?? null;
  }

  /** Return what is used where a request does not say it. */
  get usual() {
    const own = this.facts && this.ownSpeed()?.defaults;
    return own ? {...DEFAULTS, num_inference_steps: own.num_inference_steps, guidance_scale: own.guidance_scale} : DEFAULTS;
  }

  /** Fit the form to the chosen model, speed and scheduler: what does not apply is hidden. */
  fit() {
    if (!this.facts) return;
    const {elements} = this.form;
    this.offerModel();
    this.takeSpeed();
    const own = this.ownSpeed()?.defaults ?? null;
    const scheduler = own?.scheduler ?? this.model.default_noise_scheduler;
    elements.scheduler.options[0].textContent = `default (${scheduler})`;
    elements.num_inference_steps.max = Math.min(this.facts.limits.num_inference_steps, own?.max_num_inference_steps ?? Infinity);
    for (const name of ['guidance_scale', 'negative_prompt']) elements[name].closest('label').hidden = Boolean(own);
    this.more.fit({scheduler: elements.scheduler.value || scheduler, speed: own});
    elements.num_inference_steps.closest('label').hidden = this.more.hasTimesteps;
    const note = $('#speed-note');
    note.hidden = !own;
    if (own) note.textContent = `Speed ${elements.speed.value} has its guidance inside: it takes neither guidance nor a negative prompt, and at most ${own.max_num_inference_steps} steps.`;
    this.init.fit(this.steps);
  }

  /** Where a speed with settings of its own is chosen or left, put them in place of the others. */
  takeSpeed() {
    const {elements} = this.form;
    const name = this.ownSpeed()?.name ?? '';
    if (name === this.speedName) return;
    this.left[this.speedName] = Object.fromEntries(OF_THE_SPEED.map(one => [one, elements[one].value]));
    this.speedName = name;
    for (const one of OF_THE_SPEED) elements[one].value = this.left[name]?.[one] ?? this.usual[one] ?? '';
  }

  /** The number of denoising steps. */
  get steps() {
    return this.more.hasTimesteps ? this.more.values().timesteps.length : Number(this.form.elements.num_inference_steps.value || this.usual.num_inference_steps);
  }

  /** Return the body of the request; what is a default is left out. */
  body() {
    const {elements} = this.form;
    const {usual} = this;
    const body = {prompt: elements.prompt.value};
    if (elements.negative_prompt.value && isShown(elements.negative_prompt)) body.negative_prompt = elements.negative_prompt.value;
    for (const name of NUMBERS) {
      const text = elements[name].value.trim();
      if (text !== '' && isShown(elements[name]) && Number(text) !== usual[name]) body[name] = Number(text);
    }
    for (const name of CHOICES) {
      const value = elements[name].value;
      if (value && value !== usual[name]) body[name] = value;
    }
    const seed = elements.seed.value.trim();
    if (seed !== '') body.seed = Number(seed);
    return {...body, ...this.more.values(), ...this.init.values()};
  }

  /** Return what is wrong with the form, as [element, text]; null if nothing is. */
  fault() {
    const {elements} = this.form;
    if (!elements.prompt.value.trim()) return [elements.prompt, 'Write what the images should show.'];
    const bad = badNumber(this.form);
    if (bad) return bad;
    const seed = elements.seed.value.trim();
    if (seed !== '' && !(/^\d+$/.test(seed) && Number(seed) <= MAX_SEED)) return [elements.seed, `This must be a whole number from 0 to ${MAX_SEED}.`];
    return this.more.fault(Number(elements.num_images_per_prompt.value || 1));
  }

  /** Return the field of a fault's place in the request, a JSON Pointer; null for none. */
  elementOf(pointer) {
    const place = pointer.replace(/^#\/?/, '').split('/');
    const files = {init_image: '#init-file', mask: '#mask-file'};
    if (place[0] in files) return $(files[place[0]]);
    return this.more.elementOf(place) ?? (place[0] ? this.form.elements[place[0]] : null) ?? null;
  }

  /** Fill in settings; others stay. */
  set(values) {
    const {elements} = this.form;
    if (!this.facts) this.wanted = {...this.wanted, ...values};
    const put = name => {
      const element = elements[name];
      if (!element || values[name] === undefined || MORE.includes(name)) return;
      if (element.tagName === 'SELECT') choose(element, values[name] ?? '');
      else element.value = values[name] ?? '';
    };
    ['model', 'speed'].forEach(put);
    this.fit(); // which may put other values into the rest
    Object.keys(values).forEach(put);
    this.more.set(values);
    this.changed();
    if (MORE.some(name => name in values) && Object.keys(this.more.values()).length) $('#more').open = true;
  }

  /** Take over all settings that an image was made with, also that it had none of some. */
  async adopt(parameters) {
    const names = ['prompt', 'negative_prompt', 'num_inference_steps', 'guidance_scale', 'width', 'height', ...CHOICES];
    const values = Object.fromEntries(names.map(name => [name, parameters[name] ?? DEFAULTS[name] ?? '']));
    for (const name of MORE) values[name] = parameters[name] ?? null;
    if (parameters.num_images_per_prompt) values.num_images_per_prompt = parameters.num_images_per_prompt;
    this.set(values);
    await this.init.adopt(parameters);
  }

  lock(isLocked) {
    this.isLocked = isLocked;
    $('#lock').setAttribute('aria-pressed', String(isLocked));
    $('#lock').textContent = isLocked ? 'Locked' : 'Lock';
    this.keep();
  }

  /** Choose the seed of the next images, unless it is locked. */
  nextSeed() {
    if (!this.isLocked) this.form.elements.seed.value = '';
    this.changed();
  }

  changed() {
    this.fit();
    const count = Object.keys(this.more.values()).length;
    $('#more > summary').textContent = count ? `More settings: ${count} set` : 'More settings';
    this.keep();
    this.onChange?.();
  }

  keep() {
    const values = Object.fromEntries([...new FormData(this.form)].filter(([, value]) => typeof value === 'string'));
    if (!this.facts) Object.assign(values, Object.fromEntries(Object.entries(this.wanted).filter(([name]) => this.form.elements[name]?.tagName === 'SELECT')));
    sessionStorage.setItem(PLACE, JSON.stringify({values, more: this.more.kept, isLocked: this.isLocked, isOpen: $('#more').open}));
  }

  restore() {
    const {values, more, isLocked, isOpen} = JSON.parse(sessionStorage.getItem(PLACE) || '{}');
    this.wanted = values || {};
    for (const [name, value] of Object.entries(this.wanted)) {
      const element = this.form.elements[name];
      if (element?.type === 'checkbox') element.checked = true;
      else if (element && element.tagName !== 'SELECT') element.value = value;
    }
    this.more.set(more || {});
    $('#more').open = Boolean(isOpen);
    if (isLocked) this.lock(true);
  }
}
