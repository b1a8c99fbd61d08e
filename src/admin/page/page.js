// Shows what /status/live tells, once a second. Rates and charts are made here, of what came while the page was open.

const MINUTES = 5;
const SPAN = MINUTES * 60;
/** Without news for longer than this, in seconds, what is shown is old. */
const OLD = 4;

const theme = new URLSearchParams(location.search).get('theme');
if (theme === 'dark' || theme === 'light') document.documentElement.dataset.theme = theme;

const at = (id) => document.getElementById(id);

// --- Words for figures ---

const whole = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en-GB', { maximumFractionDigits: 1 });

const count = (n) => (Number.isFinite(n) ? whole.format(n) : '–');
const rate = (n) => (Number.isFinite(n) ? (n < 100 ? tenth : whole).format(n) : '–');

function bytes(n) {
  if (!Number.isFinite(n)) return '–';
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024;
    unit += 1;
  }
  return `${(n < 100 && unit > 0 ? tenth : whole).format(n)} ${units[unit]}`;
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return '–';
  const parts = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];
  const first = parts.findIndex(([length]) => seconds >= length);
  if (first === -1) return '0 s';
  let left = seconds;
  const words = parts.slice(first, first + 2).map(([length, unit]) => {
    const n = Math.floor(left / length);
    left -= n * length;
    return n ? `${n} ${unit}` : '';
  });
  return words.filter(Boolean).join(' ');
}

const since = (time) => duration((Date.now() - Date.parse(time)) / 1000);
const clock = (time) => new Date(time).toLocaleTimeString('en-GB');

// --- Charts ---

/** Values of the last minutes, and a chart of them. */
class Series {
  points = [];

  constructor(name, show) {
    Object.assign(this, { name, show });
    this.svg = drawn('svg', { viewBox: `0 0 ${SPAN} 100`, preserveAspectRatio: 'none', role: 'img' });
    this.area = drawn('path', { class: 'area' });
    this.line = drawn('path', { class: 'line' });
    this.svg.append(this.area, this.line);
  }

  add(now, value) {
    if (Number.isFinite(value)) this.points.push([now, value]);
    while (this.points.length && this.points[0][0] < now - SPAN) this.points.shift();
    const top = Math.max(...this.points.map(([, value]) => value), 0);
    const x = (time) => (SPAN - (now - time)).toFixed(1);
    const y = (value) => (96 - (top ? value / top : 0) * 88).toFixed(1);
    // A line goes on where points follow each other; a time without news is a gap in it.
    const lines = [];
    this.points.forEach(([time, value], n) => {
      if (n === 0 || time - this.points[n - 1][0] > OLD) lines.push([]);
      lines.at(-1).push([x(time), y(value)]);
    });
    const path = (points) => `M${points.map((point) => point.join(' ')).join('L')}`;
    this.line.setAttribute('d', lines.map(path).join(''));
    this.area.setAttribute('d', lines.map((points) => (
      `${path(points)}L${points.at(-1)[0]} 100L${points[0][0]} 100Z`)).join(''));
    const latest = this.points.at(-1)?.[1];
    this.svg.setAttribute('aria-label',
      `${this.name} in the last ${MINUTES} minutes: now ${this.show(latest)}, at most ${this.show(top)}`);
  }
}

function drawn(name, attributes) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

class Tile {
  constructor(title, show) {
    this.series = new Series(title, show);
    this.show = show;
    this.root = element('div', 'tile');
    this.value = element('p', 'value', '–');
    this.about = element('p', 'about');
    this.root.append(element('h3', '', title), this.value, this.about, this.series.svg);
    at('tiles').append(this.root);
  }

  tell(now, value, about = '', mood = '') {
    put(this.value, this.show(value), mood);
    put(this.about, about);
    this.series.add(now, value);
  }
}

// --- Tables ---

/** A table whose rows are known by a key, and stay in place while their figures change. */
class Table {
  rows = new Map();

  constructor(id, columns, empty) {
    Object.assign(this, { columns, empty });
    const [table, head, row] = ['table', 'thead', 'tr'].map((name) => element(name));
    this.head = columns.map(([title, kind]) => {
      const cell = element('th', kind ?? '', title);
      cell.scope = 'col';
      return cell;
    });
    row.append(...this.head);
    head.append(row);
    this.body = element('tbody');
    table.append(head, this.body);
    table.setAttribute('aria-labelledby', `${id}-title`);
    at(id).append(table);
    this.show([]);
  }

  /** Each row is its key and what its cells hold: a text, `{ text, mood, more }`, or a node. */
  show(rows) {
    if (rows.length === 0) rows = [['', [{ text: this.empty, all: true }]]];
    const keys = new Set(rows.map(([key]) => key));
    for (const [key, row] of this.rows) {
      if (keys.has(key)) continue;
      row.remove();
      this.rows.delete(key);
    }
    rows.forEach(([key, cells], n) => {
      if (!this.rows.has(key)) this.rows.set(key, this.row(cells));
      const row = this.rows.get(key);
      if (this.body.children[n] !== row) this.body.insertBefore(row, this.body.children[n] ?? null);
      cells.forEach((cell, n) => fill(row.children[n], cell));
    });
  }

  row(cells) {
    const row = element('tr');
    cells.forEach((cell, n) => {
      const name = n === 0 && !cell.all ? 'th' : 'td';
      const made = element(name, cell.all ? 'none' : this.columns[n][1] ?? '');
      if (name === 'th') made.scope = 'row';
      if (cell.all) made.colSpan = this.columns.length;
      row.append(made);
    });
    return row;
  }

  /** Shows a column only where somebody has something to say in it. */
  hide(title, hidden) {
    const n = this.columns.findIndex(([name]) => name === title);
    this.head[n].hidden = hidden;
    for (const row of this.rows.values()) if (row.children[n]) row.children[n].hidden = hidden;
  }
}

function fill(cell, content) {
  if (content instanceof Node) {
    if (cell.firstChild !== content) cell.replaceChildren(content);
    return;
  }
  const { text, mood = '', more = '', state = false } = typeof content === 'object' ? content : { text: content };
  if (!cell.firstChild) cell.append(element('span', state ? 'state' : ''));
  put(cell.firstChild, text, mood);
  if (more && cell.children.length < 2) cell.append(element('small'));
  if (cell.children.length > 1) put(cell.children[1], more);
}

/** Writes only what is new, so that nothing that is selected or read out is taken away. */
function put(node, text, mood = '') {
  if (node.textContent !== text) node.textContent = text;
  if ((node.dataset.mood ?? '') !== mood) node.dataset.mood = mood;
}

function element(name, className = '', text = '') {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

// --- What is shown ---

const tiles = {
  clients: new Tile('Clients', count),
  events: new Tile('Events a second', rate),
  data: new Tile('Data a second', bytes),
  memory: new Tile('Memory of logs', bytes),
  connections: new Tile('Connections', count),
};

const tables = {
  upstreams: new Table('upstreams', [
    ['Upstream'], ['Kind', 'wide'], ['State', 'short'], ['Events/s', 'number wide'], ['Lag', 'number'],
    ['Reconnects', 'number wide'], ['Last error'],
  ], 'No upstreams'),
  routes: new Table('routes', [
    ['Route'], ['Upstream', 'wide'], ['Clients', 'number'], ['Events/s', 'number'],
    ['Data/s', 'number wide'], ['Events/s, five minutes', 'chart wide'],
  ], 'No routes'),
  feeds: new Table('feeds', [
    ['Source'], ['Upstream', 'wide'], ['Clients', 'number'], ['Kept events', 'number'], ['Kept', 'number wide'],
  ], 'No feeds'),
  recent: new Table('recent', [
    ['Where'], ['What'], ['Times', 'number'], ['Last', 'short'],
  ], 'Nothing went wrong since the start'),
  tls: new Table('tls', [
    ['Name'], ['For', 'wide'], ['Days left', 'number'], ['Last error'],
  ], 'Nothing: what is served is plain HTTP'),
};

/** The charts of routes, by name. */
const charts = new Map();
/** The snapshot before, to make rates of, and when it came. */
let before = null;

function show(snapshot) {
  const now = performance.now() / 1000;
  const passed = before?.started === snapshot.started ? snapshot.uptime_seconds - before.uptime_seconds : NaN;
  const per = (value, earlier) => (passed > 0 ? Math.max(0, value - earlier) / passed : NaN);
  showTop(snapshot);
  const { totals, memory, connections } = snapshot;
  tiles.clients.tell(now, snapshot.subscribers, `${count(totals.feeds)} feeds, ${count(totals.routes)} routes`);
  tiles.events.tell(now, per(totals.events_out, before?.totals.events_out), `${count(totals.events_out)} since the start`);
  tiles.data.tell(now, per(totals.bytes_out, before?.totals.bytes_out), `${bytes(totals.bytes_out)} since the start`);
  tiles.memory.tell(now, memory.used, `of ${bytes(memory.limit)}`, full(memory.used / memory.limit));
  tiles.connections.tell(now, connections.open, `of ${count(connections.limit)}`, full(connections.open / connections.limit));
  showUpstreams(snapshot.upstreams, per);
  showRoutes(snapshot, now, per);
  tables.feeds.show(snapshot.feeds.map((feed, n) => [`${n}`, [
    feed.source, feed.upstream, count(feed.subscribers), count(feed.history.events), bytes(feed.history.bytes),
  ]]));
  more('feeds', totals.feeds - snapshot.feeds.length);
  showRecent(snapshot.recent);
  showTls(snapshot.tls);
  before = snapshot;
}

function full(part) {
  return part > 0.98 ? 'bad' : part > 0.85 ? 'warn' : '';
}

function showTop(snapshot) {
  put(at('about'), `version ${snapshot.version}, up for ${duration(snapshot.uptime_seconds)}`);
  const state = snapshot.draining ? ['draining', 'warn'] : snapshot.ready ? ['ready', 'good'] : ['starting', 'warn'];
  at('process').hidden = false;
  if (before && before.draining !== snapshot.draining) say(`ssegate is ${state[0]}.`);
  put(at('process'), ...state);
  // What the last look at the configuration file came to, where that is told.
  const wrong = snapshot.config?.last_error;
  const notice = wrong ? `The configuration that runs is not that of the file: ${wrong.error ?? wrong}` : '';
  if (notice && at('notice').hidden) say(notice);
  at('notice').hidden = !notice;
  put(at('notice'), notice);
}

function showUpstreams(upstreams, per) {
  const earlier = new Map(before?.upstreams.map((upstream) => [upstream.name, upstream]));
  for (const upstream of upstreams) {
    const was = earlier.get(upstream.name)?.up;
    if (was !== undefined && was !== upstream.up) say(`Upstream ${upstream.name} is ${upstream.up ? 'up' : 'down'}.`);
  }
  tables.upstreams.show(upstreams.map((upstream) => [upstream.name, [
    upstream.name,
    upstream.kind,
    { text: upstream.up ? 'up' : 'down', mood: upstream.up ? 'good' : 'bad', state: true, more: `for ${since(upstream.since)}` },
    rate(per(upstream.events_in, earlier.get(upstream.name)?.events_in)),
    upstream.lag ? { text: count(upstream.lag.records), more: duration(upstream.lag.seconds) } : '–',
    count(upstream.reconnects),
    lastError(upstream.last_error),
  ]]));
  tables.upstreams.hide('Lag', upstreams.every((upstream) => !upstream.lag));
}

function lastError(last) {
  return last ? { text: last.error, more: `${since(last.at)} ago` } : '';
}

function showRoutes({ routes, totals }, now, per) {
  const earlier = new Map(before?.routes.map((route) => [route.route, route]));
  const gone = new Set(charts.keys());
  tables.routes.show(routes.map((route) => {
    const was = earlier.get(route.route);
    const events = per(route.events_out, was?.events_out);
    gone.delete(route.route);
    if (!charts.has(route.route)) charts.set(route.route, new Series(`Events a second of ${route.route}`, rate));
    charts.get(route.route).add(now, events);
    return [route.route, [
      route.route, route.upstream, count(route.subscribers), rate(events),
      bytes(per(route.bytes_out, was?.bytes_out)), charts.get(route.route).svg,
    ]];
  }));
  gone.forEach((name) => charts.delete(name));
  more('routes', totals.routes - routes.length);
}

function more(id, left) {
  at(`${id}-more`).hidden = left <= 0;
  put(at(`${id}-more`), `and ${count(left)} more, with fewer clients`);
}

function showRecent(recent) {
  tables.recent.show(recent.map((trouble) => [
    [trouble.kind, trouble.upstream, trouble.route, trouble.what, trouble.first].join('\n'), [
      { text: trouble.route ?? trouble.upstream, more: trouble.route ? 'clients of this route' : 'upstream' },
      { text: trouble.what, more: trouble.kind, mood: trouble.kind === 'gap' ? 'warn' : 'bad' },
      count(trouble.count),
      { text: clock(trouble.last), more: `${since(trouble.last)} ago` },
    ]]));
}

function showTls(tls) {
  const mood = (days) => (days < 3 ? 'bad' : days < 14 ? 'warn' : '');
  tables.tls.show(tls.map((one) => [one.name, [
    { text: one.name, more: one.source },
    (one.names ?? []).join(', '),
    // One that is made here lasts for ever.
    one.days_left < 36525 ? { text: count(one.days_left), mood: mood(one.days_left) } : '–',
    lastError(one.last_error),
  ]]));
}

// --- The connection ---

let news = performance.now();
let source;

function connect() {
  source = new EventSource('status/live');
  source.onmessage = (event) => {
    news = performance.now();
    show(JSON.parse(event.data));
    showLink();
  };
  source.onerror = () => {
    showLink();
    // It gives up for good where it is refused, by what stands between for example.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

/** Whether what is shown is what is. */
function showLink() {
  const silent = (performance.now() - news) / 1000;
  const open = source.readyState === EventSource.OPEN && silent < OLD;
  const [text, mood] = open ? ['live', 'good'] : before ? ['disconnected', 'bad'] : ['connecting', 'warn'];
  const was = at('page').textContent;
  put(at('page'), text, mood);
  document.body.toggleAttribute('data-stale', !open && before !== null);
  if (was === 'live' && !open) say('Disconnected. What is shown is the last that was known.');
  if (was === 'disconnected' && open) say('Connected again.');
}

/** For those who listen to the page: what changed its state, never figures. */
function say(text) {
  at('said').textContent = text;
}

connect();
setInterval(showLink, 1000);
