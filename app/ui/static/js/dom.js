// Building and filling elements. Text becomes text nodes: nothing that comes from the API is read as HTML.

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'g', 'path', 'rect', 'circle', 'line', 'polyline', 'text', 'title', 'defs', 'use']);

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/**
 * Return an element. `props`: `class`, `dataset`, `style` (an object of properties), `on…` handlers, properties of the
 * element (`value`, `hidden`, `checked`), else attributes; null, undefined and false leave one out. Children are
 * elements, strings, numbers or arrays of them.
 */
export function h(tag, props, ...children) {
  const isSvg = SVG_TAGS.has(tag) && !(tag === 'title' && !props?.svg);
  const element = isSvg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false || name === 'svg') continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2).toLowerCase(), value);
    else if (name === 'class') element.setAttribute('class', value);
    else if (name === 'dataset') Object.assign(element.dataset, value);
    else if (name === 'style') for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else if (!isSvg && name in element && name !== 'list' && name !== 'form') element[name] = value;
    else element.setAttribute(name, value === true ? '' : value);
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child instanceof Node ? child : String(child));
  }
}

/** Replace the content of an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Show a short message at the bottom for some seconds; `kind`: "" or "error". */
export function toast(message, kind = '') {
  const box = $('#toast');
  const line = h('p', {class: `toast ${kind}`}, message);
  box.append(line);
  while (box.childElementCount > 3) box.firstElementChild.remove();
  setTimeout(() => line.remove(), kind === 'error' ? 12_000 : 4_000);
}

const TEXTS = {
  loading: 'Loading …',
  empty: 'There is nothing here yet.',
  failed: 'This could not be loaded.',
  offline: 'The node does not answer. What you see may be old.',
};

/**
 * Show in an element that it loads, is empty, failed or is offline. `message`: a text, or the error; `retry`: called by
 * a button, and where the node did not answer, as soon as it answers again.
 */
export function state(element, kind, message, retry) {
  const error = message instanceof Error ? message : null;
  const shown = error?.status === 0 ? 'offline' : kind;
  const text = error ? error.detail || error.message : message || TEXTS[shown];
  const isRefused = error?.status === 401 || error?.status === 403;
  const box = h('div', {class: `state ${shown === 'loading' ? 'loading' : shown === 'empty' ? 'empty' : 'error'}`},
    shown === 'loading' && h('span', {class: 'spinner', 'aria-hidden': 'true'}),
    h('p', {}, text),
    isRefused && h('p', {}, h('a', {href: `/ui/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`}, 'Sign in with a key')),
    retry && !isRefused && h('button', {type: 'button', onclick: retry}, 'Try again'));
  box.setAttribute('role', shown === 'loading' || shown === 'empty' ? 'status' : 'alert');
  element.replaceChildren(box);
  element.setAttribute('aria-busy', String(shown === 'loading'));
  if (shown === 'offline' && retry) whenBack(() => box.isConnected && retry());
  return box;
}

/** Call back once, as soon as a node that did not answer answers again. */
export function whenBack(callback) {
  window.addEventListener('foxhound:back', callback, {once: true});
}

/** Call back with true when the node cannot be reached, and with false when it can again. */
export function onOffline(callback) {
  let last = false;
  const tell = isOffline => {
    if (isOffline !== last) callback(last = isOffline);
  };
  window.addEventListener('foxhound:offline', event => tell(event.detail));
}
