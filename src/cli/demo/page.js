// Shows each stream on a card. All that a page of your own needs is in Card.connect.

const known = JSON.parse(document.getElementById('known').textContent);
const cards = [];

class Card {
  opens = 0;
  count = 0;
  gaps = 0;
  /** When the connection was lost, and when it stood again, while missed events may still be coming. */
  lostAt = null;
  backAt = null;
  caughtUp = 0;

  constructor(stream) {
    this.stream = stream;
    this.root = document.getElementById('card').content.cloneNode(true).firstElementChild;
    this.sequence = new Sequence(stream.numbered);
    const url = location.origin + stream.path;
    const curl = `curl -kN ${url}`;
    const heading = this.at('h2');
    heading.id = `stream-${cards.length}`;
    this.root.setAttribute('aria-labelledby', heading.id);
    heading.textContent = stream.title;
    this.at('.about').textContent = stream.about;
    this.at('.url').textContent = this.at('.url').title = url;
    this.copies('.curl', curl, `Copy the curl line of ${stream.title}`);
    this.at('.cut').setAttribute('aria-label', `Cut the connection of ${stream.title}`);
    this.at('.cut').onclick = () => post('/cut', { route: stream.route });
    if (stream.room) this.showRoom(stream.room);
    this.row('empty', 'Nothing yet');
    this.showSequence();
    this.connect();
  }

  connect() {
    const source = this.source = new EventSource(this.stream.path);
    source.onopen = () => this.opened();
    source.onerror = () => this.lost();
    source.onmessage = (event) => this.message(event);
    for (const name of this.stream.names) {
      source.addEventListener(name, (event) => this.message(event));
    }
    source.addEventListener('stream.position', (event) => this.showId(event.lastEventId));
    source.addEventListener('stream.gap', (event) => this.gap(JSON.parse(event.data)));
    this.showState();
  }

  opened() {
    this.opens += 1;
    this.showState();
    this.at('.reconnects').textContent = this.opens - 1;
    if (this.lostAt === null) return;
    this.backAt = Date.now();
    this.caughtUp = 0;
    this.away = ((this.backAt - this.lostAt) / 1000).toFixed(1);
    this.lostAt = null;
    this.row('note good', `back after ${this.away} s`);
    this.showResume();
    say(`${this.stream.title}: reconnected after ${this.away} seconds.`);
  }

  lost() {
    this.showState();
    if (this.source.readyState === EventSource.CLOSED) {
      this.row('note bad', 'refused, so the browser gives up');
      say(`${this.stream.title}: closed.`);
    } else if (this.lostAt === null) {
      this.lostAt = Date.now();
      this.row('note', 'connection lost, the browser tries again');
    }
  }

  message(event) {
    this.count += 1;
    this.at('.count').textContent = this.count;
    this.showId(event.lastEventId);
    const content = parsed(event.data);
    const missed = this.wasMissed(content);
    const row = this.row(missed ? 'replayed' : '', event.data, event.type);
    if (missed) {
      row.title = 'Sent when the connection stood again';
      this.caughtUp += 1;
      this.showResume();
    }
    this.sequence.take(event.type, content?.number);
    this.showSequence();
  }

  /** Whether an event happened while the connection was lost: by its time, or else because it came at once. */
  wasMissed(content) {
    if (this.backAt === null) return false;
    const missed = content?.time ? Date.parse(content.time) < this.backAt : Date.now() - this.backAt < 150;
    if (!missed) this.backAt = null;
    return missed;
  }

  gap({ reason, missed }) {
    this.gaps += 1;
    this.at('.gaps').textContent = `${this.gaps} (${reason})`;
    this.at('.gaps').dataset.mood = 'bad';
    const what = missed === null ? 'some events' : events(missed);
    this.row('note bad', `gap: ${what} missed, ${reason}`);
    say(`${this.stream.title}: a gap, ${reason}.`);
    // What is missing is told; the numbers begin anew.
    this.sequence = new Sequence(this.stream.numbered);
  }

  /** Puts a row on top of the latest events. */
  row(kind, text, name) {
    const row = element('li', kind);
    const now = new Date();
    const time = element('time', '', now.toLocaleTimeString('en-GB'));
    time.dateTime = now.toISOString();
    if (kind !== 'empty') row.append(time);
    if (name && name !== 'message') row.append(element('code', 'name', name));
    const data = element(kind === '' || kind === 'replayed' ? 'code' : 'span', 'data', text);
    data.title = text;
    row.append(data);
    const list = this.at('.events');
    list.querySelector('.empty')?.remove();
    list.prepend(row);
    while (list.children.length > 6) list.lastElementChild.remove();
    return row;
  }

  showState() {
    const state = ['connecting', 'open', 'closed'][this.source.readyState];
    this.at('.state').dataset.state = state;
    this.at('.state').textContent = state;
    this.at('.cut').disabled = state !== 'open';
    showOverall();
  }

  showId(id) {
    this.at('.id').textContent = this.at('.id').title = id || 'none yet';
  }

  showSequence() {
    const { text, mood } = this.sequence.summary();
    const sequence = this.at('.sequence');
    if (sequence.textContent !== text) sequence.textContent = text;
    sequence.dataset.mood = mood;
  }

  showResume() {
    this.at('.resume').textContent = `Resumed after ${this.away} s, ${events(this.caughtUp)} caught up on`;
  }

  showRoom(room) {
    this.copies('.publish', `curl -d hello ${known.admin}/publish/${room}`, 'Copy the curl line that publishes');
    this.at('.publish').closest('div').hidden = false;
    const form = this.at('form');
    const input = form.elements.text;
    input.id = `room-${room}`;
    this.at('label').htmlFor = input.id;
    this.at('label').textContent = `Say something in the room “${room}”`;
    form.hidden = false;
    form.onsubmit = (submit) => {
      submit.preventDefault();
      post('/say', { room, text: input.value });
      input.value = '';
    };
  }

  /** Shows a line, with a button beside it that copies it. */
  copies(selector, line, label) {
    const code = this.at(selector);
    code.textContent = code.title = line;
    const button = code.nextElementSibling;
    button.setAttribute('aria-label', label);
    button.onclick = async () => {
      await navigator.clipboard.writeText(line);
      button.textContent = 'Copied';
      setTimeout(() => { button.textContent = 'Copy'; }, 1500);
    };
  }

  at(selector) {
    return this.root.querySelector(selector);
  }
}

/** Looks for numbers that are missing or came twice, whatever their order. */
class Sequence {
  runs = new Map();
  repeated = 0;

  constructor(numbered) {
    this.numbered = numbered;
  }

  take(name, number) {
    if (!this.numbered || !Number.isInteger(number)) return;
    const key = this.numbered === 'by name' ? name : '';
    const run = this.runs.get(key) ?? { seen: new Set(), first: number, last: number };
    this.runs.set(key, run);
    if (run.seen.has(number)) this.repeated += 1;
    run.seen.add(number);
    run.first = Math.min(run.first, number);
    run.last = Math.max(run.last, number);
  }

  summary() {
    if (!this.numbered) return { text: 'not numbered', mood: 'none' };
    if (this.runs.size === 0) return { text: 'waiting', mood: 'none' };
    const missing = [...this.runs.values()].reduce(
      (sum, run) => sum + run.last - run.first + 1 - run.seen.size, 0);
    if (missing === 0 && this.repeated === 0) return { text: 'complete, nothing twice', mood: 'good' };
    return { text: `${missing} missing, ${this.repeated} twice`, mood: 'bad' };
  }
}

function showOverall() {
  const open = cards.filter((card) => card.source.readyState === EventSource.OPEN).length;
  document.getElementById('overall').textContent = `${open} of ${known.streams.length} streams open`;
  document.getElementById('cut-all').disabled = open === 0;
}

function post(path, query) {
  return fetch(`${path}?${new URLSearchParams(query)}`, { method: 'POST' })
    .then((answer) => { if (!answer.ok) throw new Error(answer.status); })
    .catch(() => say('The demo does not answer.'));
}

/** For those who listen to the page; rare events only. */
function say(text) {
  document.getElementById('said').textContent = text;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function events(count) {
  return count === 1 ? '1 event' : `${count || 'no'} events`;
}

function element(name, className, text = '') {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

if (known.noRedis) {
  const notice = document.getElementById('no-redis');
  notice.textContent = `No Redis streams: ${known.noRedis}.`;
  notice.hidden = false;
}
document.getElementById('cut-all').onclick = () => post('/cut', {});
for (const stream of known.streams) {
  const card = new Card(stream);
  cards.push(card);
  document.getElementById('cards').append(card.root);
}
showOverall();
