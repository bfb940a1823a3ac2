// A grid of any number of square tiles: only those near the window are in the document.

const OVERSCAN = 2;
const GAP = 8;

export class VirtualGrid {
  /**
   * `root`: an element in the scrolling page. `build(item, index)` returns a tile, a focusable element.
   * `onNear()` is called when the last items come near the window.
   */
  constructor(root, {build, onNear, size = 192}) {
    Object.assign(this, {root, build, onNear, size, items: [], shown: new Map(), columns: 1, edge: size});
    this.schedule = () => {
      this.frame ??= requestAnimationFrame(() => {
        this.frame = null;
        this.render();
      });
    };
    window.addEventListener('scroll', this.schedule, {passive: true});
    new ResizeObserver(() => this.layout()).observe(root);
    root.addEventListener('keydown', event => this.move(event));
  }

  clear() {
    this.items = [];
    this.drop();
    this.layout();
  }

  add(items) {
    this.items.push(...items);
    this.layout();
  }

  resize(size) {
    const first = this.firstRow() * this.columns;
    this.size = size;
    this.layout();
    if (first) this.reveal(first);
  }

  layout() {
    const width = this.root.clientWidth || 1;
    const columns = Math.max(1, Math.floor((width + GAP) / (this.size + GAP)));
    const edge = Math.floor((width - GAP * (columns - 1)) / columns);
    if (columns !== this.columns || edge !== this.edge) this.drop();
    Object.assign(this, {columns, edge});
    const rows = Math.ceil(this.items.length / columns);
    this.root.style.setProperty('height', `${Math.max(0, rows * (edge + GAP) - GAP)}px`);
    this.render();
  }

  drop() {
    for (const tile of this.shown.values()) tile.remove();
    this.shown.clear();
  }

  firstRow() {
    return Math.max(0, Math.floor(-this.root.getBoundingClientRect().top / (this.edge + GAP)));
  }

  render() {
    const row = this.edge + GAP;
    const first = Math.max(0, this.firstRow() - OVERSCAN);
    const last = this.firstRow() + Math.ceil(window.innerHeight / row) + OVERSCAN;
    const [from, to] = [first * this.columns, Math.min(this.items.length, (last + 1) * this.columns)];
    for (const [index, tile] of this.shown) {
      if ((index < from || index >= to) && tile !== document.activeElement) {
        tile.remove();
        this.shown.delete(index);
      }
    }
    for (let index = from; index < to; index += 1) if (!this.shown.has(index)) this.put(index);
    if (to >= this.items.length - this.columns * OVERSCAN) this.onNear();
  }

  put(index) {
    const tile = this.build(this.items[index], index);
    tile.classList.add('tile');
    tile.dataset.index = index;
    tile.setAttribute('aria-posinset', index + 1);
    const [x, y] = [(index % this.columns) * (this.edge + GAP), Math.floor(index / this.columns) * (this.edge + GAP)];
    tile.style.setProperty('transform', `translate(${x}px, ${y}px)`);
    tile.style.setProperty('width', `${this.edge}px`);
    tile.style.setProperty('height', `${this.edge}px`);
    // In the order of the items, so that Tab goes from each to the next.
    const next = [...this.shown].filter(([other]) => other > index).sort(([a], [b]) => a - b)[0];
    this.root.insertBefore(tile, next ? next[1] : null);
    this.shown.set(index, tile);
  }

  reveal(index) {
    const row = Math.floor(index / this.columns);
    const top = this.root.getBoundingClientRect().top + window.scrollY + row * (this.edge + GAP);
    if (top < window.scrollY || top + this.edge > window.scrollY + window.innerHeight) window.scrollTo({top: top - 80});
    this.render();
  }

  move(event) {
    const by = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns, Home: -Infinity, End: Infinity}[event.key];
    const at = Number(event.target.closest('.tile')?.dataset.index);
    if (by === undefined || Number.isNaN(at) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const index = Math.min(Math.max(at + by, 0), this.items.length - 1);
    this.reveal(index);
    (this.shown.get(index)?.querySelector('a, button') || this.shown.get(index))?.focus({preventScroll: true});
  }
}
