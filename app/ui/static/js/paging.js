// Lists of the API a page at a time: the document holds one page of them, however many there are.

import {api} from './api.js';
import {fill, h, state} from './dom.js';

/** Return a path with those parameters that are neither empty nor null. */
export function withQuery(path, params) {
  const query = new URLSearchParams(Object.entries(params).filter(([, value]) => value !== '' && value !== null && value !== undefined));
  return query.size ? `${path}?${query}` : path;
}

/** Pages of a list by its cursors: `load()` the first, `next()`, `previous()`, `reload()` the current one. */
export class Pages {
  /** `path()` returns the list's path, `params()` its filters; `show(items, page)` draws a page. */
  constructor({into, path, params = () => ({}), limit = 20, show, empty}) {
    Object.assign(this, {path, params, limit, show, empty});
    this.content = h('div', {class: 'page-content'});
    this.where = h('span', {class: 'muted small', role: 'status'});
    this.back = h('button', {type: 'button', onclick: () => this.previous()}, 'Newer');
    this.forth = h('button', {type: 'button', onclick: () => this.next()}, 'Older');
    this.controls = h('nav', {class: 'row', 'aria-label': 'Pages of the list'}, this.back, this.forth, this.where);
    fill(into, this.content, this.controls);
    this.cursors = [''];
    this.items = [];
  }

  get hasNext() {
    return Boolean(this.following);
  }

  get hasPrevious() {
    return this.cursors.length > 1;
  }

  async load() {
    this.cursors = [''];
    await this.reload();
  }

  async next() {
    if (!this.following) return;
    this.cursors.push(this.following);
    await this.reload();
  }

  async previous() {
    if (!this.hasPrevious) return;
    this.cursors.pop();
    await this.reload();
  }

  /** Read the current page again; a request that is still open is given up. */
  async reload({quietly = false} = {}) {
    this.request?.abort();
    const request = this.request = new AbortController();
    if (!quietly) state(this.content, 'loading');
    try {
      const page = await this.read(this.cursors.at(-1), request.signal);
      if (request.signal.aborted) return;
      this.following = page.next_cursor;
      this.items = page.items;
      this.content.removeAttribute('aria-busy');
      if (page.items.length) this.show(page.items, page, this.content);
      else state(this.content, 'empty', typeof this.empty === 'function' ? this.empty() : this.empty);
      this.describe(page);
    } catch (error) {
      if (error.name === 'AbortError' || (quietly && this.items.length)) return;
      state(this.content, 'failed', error, () => this.reload());
      this.controls.hidden = true;
    }
  }

  read(cursor, signal) {
    return api(withQuery(this.path(), {limit: this.limit, cursor, ...this.params()}), {signal});
  }

  describe(page) {
    const from = (this.cursors.length - 1) * this.limit;
    const total = page.total === null || page.total === undefined ? '' : ` of ${page.total}`;
    this.where.textContent = page.items.length ? `${from + 1} to ${from + page.items.length}${total}` : '';
    this.back.disabled = !this.hasPrevious;
    this.forth.disabled = !this.hasNext;
    this.controls.hidden = !this.hasPrevious && !this.hasNext;
  }
}

/** Pages of known images; the cursor is the place in their list of ids. */
export class ImagePages extends Pages {
  constructor({ids, ...options}) {
    super({path: () => '', ...options});
    this.ids = ids;
  }

  async read(cursor, signal) {
    const from = Number(cursor);
    const ids = this.ids.slice(from, from + this.limit);
    const found = await Promise.allSettled(ids.map(id => api(`/images/${id}/metadata`, {signal})));
    const failed = found.find(one => one.status === 'rejected' && one.reason.status !== 404);
    if (failed) throw failed.reason;
    const to = from + this.limit;
    return {
      items: found.filter(one => one.status === 'fulfilled').map(one => one.value), total: this.ids.length,
      next_cursor: to < this.ids.length ? String(to) : null,
    };
  }
}
