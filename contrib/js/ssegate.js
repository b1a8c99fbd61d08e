/**
 * Reads a stream of ssegate by `fetch`, and so with credentials in headers, in browsers and in Node 18 or later: comes back
 * by itself and resumes, tells gaps and snapshots, and renews its token while the stream is open. A plain `EventSource`
 * reads the same streams.
 * @module
 */

/**
 * An event.
 * @typedef {object} StreamEvent
 * @property {string} event Its name; `message` where it has none.
 * @property {string} data Its data as it was published.
 * @property {string} id What to resume from after it.
 * @property {boolean} snapshot Whether it is part of a snapshot: of the state before what changes.
 * @property {string} feed Of several feeds, the one that it is of; else empty.
 */

/**
 * Feeds of a stream of several, by their paths: those to read, or for each what is given its events in place of `onEvent`.
 * @typedef {string[] | Record<string, Handler>} Feeds
 */

/** @typedef {((event: StreamEvent) => void) | undefined} Handler */

/**
 * Events that are missing. The reasons are those of ssegate's README.
 * @typedef {object} Gap
 * @property {string} reason
 * @property {number | null} missed How many there are, where that can be known.
 * @property {unknown} from
 * @property {unknown} to
 * @property {string | null} since
 * @property {string | null} until
 * @property {string} [feed] Of several feeds, the one that lacks them.
 */

/**
 * Why a stream could not be had. Of an answer it has the status; `final` says that it is not tried again, and `after` for
 * how many milliseconds the server does not want it to be.
 * @typedef {Error & { status?: number, final?: boolean, after?: number }} Failure
 */

/**
 * @typedef {object} Options
 * @property {(event: StreamEvent) => void} [onEvent]
 * @property {(gap: Gap) => void} [onGap] Here events are missing: the time to load the state anew.
 * @property {(part: 'start' | 'end', feed: string) => void} [onSnapshot] At the start clear the state; what comes up to the end is it.
 * @property {(name: string, data: any) => void} [onControl] What else the stream says of itself, such as `refused` of a feed.
 * @property {(state: 'connecting' | 'open' | 'waiting' | 'closed', failure?: Failure) => void} [onState] `closed` is for good.
 * @property {(renewal: boolean) => string | Promise<string>} [token] Gives a bearer token, whenever one is needed.
 * @property {Feeds} [feeds] Of a stream of several feeds, those to read. Without any it waits for the first.
 * @property {string} [lastEventId] What to resume from at first.
 * @property {Record<string, string>} [headers] Sent along.
 * @property {RequestCredentials} [credentials] Whether cookies are sent along, as for `fetch`.
 * @property {string} [prefix] What the names of control events begin with, by default `stream.`.
 * @property {number} [silence] Milliseconds without a byte, or a token, after which a connection is given up, by default 60,000.
 * @property {typeof globalThis.fetch} [fetch] Used in place of the global one.
 */

/**
 * A stream that is read until it is closed.
 * @typedef {object} Subscription
 * @property {() => void} close Reads no more.
 * @property {(feeds: Feeds) => void} setFeeds Reads these feeds from now on; those that stay go on where they are.
 * @property {(feed: string, handler?: Handler) => void} addFeed Reads this one, too.
 * @property {(feed: string) => void} removeFeed Reads this one no more.
 * @property {string} lastEventId What it would resume from.
 */

/**
 * Reads the stream at `url`, which is relative to the page where there is one.
 * @param {string | URL} url
 * @param {Options} [options]
 * @returns {Subscription}
 */
export function subscribe(url, options = {}) {
  const { onEvent, onGap, onSnapshot, onControl, onState, token, headers, credentials } = options;
  const { prefix = 'stream.', silence = 60000, fetch = globalThis.fetch } = options;
  const base = new URL(url, globalThis.location?.href);
  let { lastEventId = '' } = options;
  let [retry, failures, closed, hurried, refused] = [3000, -1, false, false, false];
  /** @type {Set<string>} Feeds of which a snapshot comes. */
  const snapshots = new Set();
  /** @type {Map<string, Handler> | undefined} */
  let handlers;
  let connection = new AbortController();
  let wake = () => {};

  /**
   * What comes before the connection is given up, which a token that never does is no reason against.
   * @template T
   * @param {Promise<T>} coming
   */
  const within = coming => {
    const { signal } = connection;
    const timer = setTimeout(() => connection.abort(), silence);
    const givenUp = new Promise((_, fail) => { signal.onabort = () => fail(signal.reason); });
    return Promise.race([coming, givenUp]).finally(() => clearTimeout(timer));
  };

  /** @type {(url: URL, renewal: boolean, init: RequestInit) => Promise<Response>} */
  const ask = async (url, renewal, init) => {
    const bearer = token && { authorization: `Bearer ${await token(renewal)}` };
    return fetch(url, { ...init, credentials, signal: connection.signal, headers: { ...headers, ...bearer, accept: 'text/event-stream' } });
  };

  /** @type {(name: string, data: string) => void} */
  const control = (name, data) => {
    const said = JSON.parse(data);
    const { feed = '', renew } = said;
    if (name === 'gap') onGap?.(said);
    else if (name.startsWith('snapshot-')) {
      snapshots[name.endsWith('start') ? 'add' : 'delete'](feed);
      onSnapshot?.(/** @type {'start' | 'end'} */ (name.slice(9)), feed);
    } else if (name === 'expiring' && token && renew) {
      // Where this fails the stream ends, and is opened anew with a token of then.
      ask(new URL(renew, base), true, { method: 'POST' }).then(answer => answer.text()).catch(() => {});
    } else if (name !== 'position') onControl?.(name, said);
  };

  /** @type {(name: string, data: string, id: string) => void} */
  const take = (name, data, id) => {
    lastEventId = id;
    try {
      if (name.startsWith(prefix)) return control(name.slice(prefix.length), data);
      const [, feed = '', event = name] = (handlers && /^(\/\S*) ?(.*)$/s.exec(name)) ?? [];
      (handlers?.get(feed) ?? onEvent)?.({ event: event || 'message', data, id, snapshot: snapshots.has(feed), feed });
    } catch (error) {
      // What is thrown there is no failure of the stream.
      queueMicrotask(() => { throw error; });
    }
  };

  const read = async () => {
    // Whoever is asked for none would refuse for good.
    if (handlers?.size === 0) return;
    const here = new URL(base);
    handlers?.forEach((_, feed) => here.searchParams.append('feed', feed));
    if (lastEventId) here.searchParams.set('lastEventId', lastEventId);
    const answer = await within(ask(here, false, { cache: 'no-store' }));
    const { status, body } = answer;
    if (status !== 200 || !body || !answer.headers.get('content-type')?.startsWith('text/event-stream')) {
      const passes = status >= 500 || [408, 425, 429].includes(status) || (status === 401 && token && !refused);
      refused = status === 401;
      const after = Number(answer.headers.get('retry-after')) * 1000 || 0;
      const said = await within(answer.json()).catch(() => {});
      throw Object.assign(Error(said?.detail ?? status), { status, final: !passes, after });
    }
    [failures, refused] = [-1, false];
    snapshots.clear();
    onState?.('open');
    const [reader, text, feed] = [body.getReader(), new TextDecoder(), parser(lastEventId, take, ms => { retry = ms; })];
    for (;;) {
      const { done, value } = await within(reader.read());
      if (done) return;
      feed(text.decode(value, { stream: true }));
    }
  };

  const run = async () => {
    while (!closed) {
      connection = new AbortController();
      hurried = false;
      onState?.('connecting');
      /** @type {Failure | undefined} */
      const failure = await read().then(() => undefined, error => error);
      connection.abort();
      if (failure?.final) return onState?.('closed', failure);
      if (closed) break;
      hurried || onState?.('waiting', failure);
      // Longer after each failure in a row but the first, and never as long as others.
      const wait = Math.max(retry, Math.min(retry * 2 ** failures, 60000)) * (0.75 + Math.random() / 2);
      failures += 1;
      await new Promise(resolve => {
        const timer = setTimeout(resolve, hurried ? 0 : Math.min(Math.max(wait, failure?.after ?? 0), 2e9));
        wake = () => { clearTimeout(timer); resolve(0); };
      });
    }
    onState?.('closed');
  };

  /** Ends what is going on, be it reading or waiting. */
  const interrupt = () => {
    hurried = true;
    connection.abort();
    wake();
  };

  /** @param {Feeds} feeds */
  const setFeeds = feeds => {
    handlers = new Map(Array.isArray(feeds) ? feeds.map(feed => [feed, handlers?.get(feed)]) : Object.entries(feeds));
  };
  if (options.feeds) setFeeds(options.feeds);
  // Not before the caller has what this returns.
  queueMicrotask(run);
  return {
    close: () => { closed = true; interrupt(); },
    setFeeds: feeds => { setFeeds(feeds); interrupt(); },
    addFeed: (feed, handler) => { (handlers ??= new Map()).set(feed, handler); interrupt(); },
    removeFeed: feed => { handlers?.delete(feed); interrupt(); },
    get lastEventId() { return lastEventId; },
  };
}

/**
 * Reads text as WHATWG HTML 9.2.6 has it.
 * @param {string} id
 * @param {(event: string, data: string, id: string) => void} take
 * @param {(milliseconds: number) => void} comeBack
 * @returns {(text: string) => void}
 */
function parser(id, take, comeBack) {
  let [rest, event, data, next] = ['', '', '', id];
  return text => {
    // A CR at the end may be the first half of a line end.
    const lines = (rest + text).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? '';
    for (const line of lines) {
      const [, name, value = ''] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (!line) {
        id = next;
        if (data) take(event || 'message', data.slice(0, -1), id);
        event = data = '';
      } else if (name === 'data') data += value + '\n';
      else if (name === 'event') event = value;
      else if (name === 'id' && !value.includes('\0')) next = value;
      else if (name === 'retry' && /^\d+$/.test(value)) comeBack(+value);
    }
  };
}
