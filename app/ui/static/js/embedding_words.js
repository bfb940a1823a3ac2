// The embeddings of a request: their words are inserted into a prompt, and those that stand in one are named.

import {h} from './dom.js';

export class EmbeddingWords {
  /** `prompts`: the text fields; a word goes into the one that had the focus last. */
  constructor(prompts, onChange) {
    this.prompts = prompts;
    this.target = prompts[0];
    this.offered = [];
    this.chosen = new Set();
    for (const prompt of prompts) prompt.addEventListener('focus', () => { this.target = prompt; });
    this.select = h('select', {'aria-label': 'Embedding'});
    this.insert = h('button', {type: 'button', onclick: () => {
      this.put(this.select.value);
      onChange();
    }}, 'Insert its word');
    this.root = h('fieldset', {hidden: true}, h('legend', {}, 'Embeddings'), h('div', {class: 'row'}, h('div', {class: 'grow chosen'}, this.select), this.insert),
      h('p', {class: 'muted small'}, 'The word goes into the prompt that you were last in.'));
  }

  /** Offer embeddings, each with its word. */
  offer(embeddings) {
    this.offered = embeddings;
    this.root.hidden = !embeddings.length;
    this.select.replaceChildren(...embeddings.map(({name, token}) => h('option', {value: name}, name === token ? name : `${name}: ${token}`)));
  }

  /** Return the names of the chosen embeddings whose words stand in a prompt. */
  get value() {
    return this.offered.filter(({name, token}) => this.chosen.has(name) && this.prompts.some(({value}) => value.includes(token))).map(({name}) => name);
  }

  set(names) {
    this.chosen = new Set(names);
  }

  /** Put the word of an embedding where the caret is. */
  put(name) {
    const {token} = this.offered.find(one => one.name === name);
    const prompt = this.target.closest('[hidden]') ? this.prompts[0] : this.target;
    const {value, selectionStart: from, selectionEnd: to} = prompt;
    const before = from && !/\s$/.test(value.slice(0, from)) ? ' ' : '';
    const after = value.slice(to) && !/^[\s,.]/.test(value.slice(to)) ? ' ' : '';
    prompt.setRangeText(before + token + after, from, to, 'end');
    this.chosen.add(name);
  }
}
