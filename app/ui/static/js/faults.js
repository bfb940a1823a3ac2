// Faults of a form, each shown at its field. Knows no form.

import {$, $$, h} from './dom.js';

let marked = 0;

/** Return the name of a field as a person reads it. */
function labelOf(element) {
  return element.dataset.name || element.getAttribute('aria-label') || element.closest('label').firstChild.textContent.trim();
}

/** Return the first number that a form does not take, as [element, text]; null if there is none. Hidden ones do not count. */
export function badNumber(form) {
  const found = $$('input[type="number"]', form).find(element => !element.closest('[hidden]') && !element.validity.valid);
  return found ? [found, found.validationMessage] : null;
}

/** Say at a field what is wrong with it; `details` around it are opened. */
function mark(element, text) {
  for (let box = element.closest('details'); box; box = box.parentElement.closest('details')) box.open = true;
  element.setAttribute('aria-invalid', 'true');
  const line = h('span', {class: 'fault error small', id: `fault-${marked += 1}`}, text);
  const label = element.dataset.faults ? null : element.closest('label');
  if (!label) element.setAttribute('aria-describedby', line.id);
  const {faults} = element.dataset; // a selector of where to say it, in place of the label
  (faults ? $(faults) : label || element.parentElement).append(line);
}

/** Say one fault at its field, and go to it; return it as a line for a summary. */
export function markOne([element, text]) {
  mark(element, text);
  element.focus();
  return `${labelOf(element)}: ${text}`;
}

/** Take back what `mark` said. */
export function unmark(form) {
  for (const line of $$('.fault', form)) line.remove();
  for (const element of $$('[aria-invalid]', form)) {
    element.removeAttribute('aria-invalid');
    if (element.getAttribute('aria-describedby')?.startsWith('fault-')) element.removeAttribute('aria-describedby');
  }
}

/**
 * Say all faults of a refused request at their fields, and go to the first one; return them as lines for a summary.
 * `elementOf(pointer)`: the field of a JSON Pointer, null for none.
 */
export function markAll(error, elementOf) {
  const faults = (error.errors || []).map(({pointer, detail}) => ({element: elementOf(pointer), pointer, detail}));
  const shown = faults.filter(({element}) => element && !element.closest('[hidden]'));
  for (const {element, detail} of shown) mark(element, detail);
  shown[0]?.element.focus();
  if (!faults.length) return [error.detail || error.message];
  return faults.map(one => {
    const name = shown.includes(one) ? labelOf(one.element) : one.pointer.replace(/^#\/?/, '').replaceAll('_', ' ');
    return name ? `${name}: ${one.detail}` : one.detail;
  });
}
