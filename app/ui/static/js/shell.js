// What every page has: the current page in the navigation, who is signed in, and whether the node answers.

import {clearKey, getKey} from './api.js';
import {$, $$, fill, h, onOffline} from './dom.js';

const notice = $('#notice');
const account = $('#account');

for (const link of $$('[data-for]')) {
  if (link.dataset.for.split(' ').includes(document.body.dataset.page)) link.setAttribute('aria-current', 'page');
}

const here = () => encodeURIComponent(location.pathname + location.search);

function say(kind, ...content) {
  notice.dataset.kind = kind;
  fill(notice, content);
  notice.hidden = false;
}

function unsay(kind) {
  if (notice.dataset.kind === kind) notice.hidden = true;
}

if (getKey()) {
  account.textContent = 'Sign out';
  account.setAttribute('href', '/ui/sign-in');
  account.addEventListener('click', () => clearKey());
} else if (document.body.dataset.page !== 'sign_in') {
  account.setAttribute('href', `/ui/sign-in?next=${here()}`);
}

window.addEventListener('foxhound:refused', event => {
  if (document.body.dataset.page === 'sign_in') return;
  say('refused', `${event.detail.detail} `, h('a', {href: `/ui/sign-in?next=${here()}`}, 'Sign in'));
});

const ASKED_EVERY_MS = 2_000;
let isWatching = false;

onOffline(isOffline => {
  if (isOffline) {
    say('offline', 'The node does not answer. What you see may be old.');
    watch();
  } else {
    unsay('offline');
    window.dispatchEvent(new Event('foxhound:back'));
  }
});

/** Ask the node whether it answers, until it does; a browser without a network may still reach it. */
async function watch() {
  if (isWatching) return;
  isWatching = true;
  for (;;) {
    const answers = await fetch('/livez', {credentials: 'omit', cache: 'no-store'}).then(() => true, () => false);
    window.dispatchEvent(new CustomEvent('foxhound:offline', {detail: !answers}));
    if (answers && navigator.onLine) break;
    await new Promise(resolve => setTimeout(resolve, ASKED_EVERY_MS));
  }
  isWatching = false;
}

window.addEventListener('offline', watch);
