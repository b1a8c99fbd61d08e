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
export function subscribe(url: string | URL, options?: Options): Subscription;
/**
 * An event.
 */
export type StreamEvent = {
    /**
     * Its name; `message` where it has none.
     */
    event: string;
    /**
     * Its data as it was published.
     */
    data: string;
    /**
     * What to resume from after it.
     */
    id: string;
    /**
     * Whether it is part of a snapshot: of the state before what changes.
     */
    snapshot: boolean;
    /**
     * Of several feeds, the one that it is of; else empty.
     */
    feed: string;
};
/**
 * Feeds of a stream of several, by their paths: those to read, or for each what is given its events in place of `onEvent`.
 */
export type Feeds = string[] | Record<string, Handler>;
export type Handler = ((event: StreamEvent) => void) | undefined;
/**
 * Events that are missing. The reasons are those of ssegate's README.
 */
export type Gap = {
    reason: string;
    /**
     * How many there are, where that can be known.
     */
    missed: number | null;
    from: unknown;
    to: unknown;
    since: string | null;
    until: string | null;
    /**
     * Of several feeds, the one that lacks them.
     */
    feed?: string | undefined;
};
/**
 * Why a stream could not be had. Of an answer it has the status; `final` says that it is not tried again, and `after` for
 * how many milliseconds the server does not want it to be.
 */
export type Failure = Error & {
    status?: number;
    final?: boolean;
    after?: number;
};
export type Options = {
    onEvent?: ((event: StreamEvent) => void) | undefined;
    /**
     * Here events are missing: the time to load the state anew.
     */
    onGap?: ((gap: Gap) => void) | undefined;
    /**
     * At the start clear the state; what comes up to the end is it.
     */
    onSnapshot?: ((part: "start" | "end", feed: string) => void) | undefined;
    /**
     * What else the stream says of itself, such as `refused` of a feed.
     */
    onControl?: ((name: string, data: any) => void) | undefined;
    /**
     * `closed` is for good.
     */
    onState?: ((state: "connecting" | "open" | "waiting" | "closed", failure?: Failure) => void) | undefined;
    /**
     * Gives a bearer token, whenever one is needed.
     */
    token?: ((renewal: boolean) => string | Promise<string>) | undefined;
    /**
     * Of a stream of several feeds, those to read. Without any it waits for the first.
     */
    feeds?: Feeds | undefined;
    /**
     * What to resume from at first.
     */
    lastEventId?: string | undefined;
    /**
     * Sent along.
     */
    headers?: Record<string, string> | undefined;
    /**
     * Whether cookies are sent along, as for `fetch`.
     */
    credentials?: RequestCredentials | undefined;
    /**
     * What the names of control events begin with, by default `stream.`.
     */
    prefix?: string | undefined;
    /**
     * Milliseconds without a byte, or a token, after which a connection is given up, by default 60,000.
     */
    silence?: number | undefined;
    /**
     * Used in place of the global one.
     */
    fetch?: typeof globalThis.fetch | undefined;
};
/**
 * A stream that is read until it is closed.
 */
export type Subscription = {
    /**
     * Reads no more.
     */
    close: () => void;
    /**
     * Reads these feeds from now on; those that stay go on where they are.
     */
    setFeeds: (feeds: Feeds) => void;
    /**
     * Reads this one, too.
     */
    addFeed: (feed: string, handler?: Handler) => void;
    /**
     * Reads this one no more.
     */
    removeFeed: (feed: string) => void;
    /**
     * What it would resume from.
     */
    lastEventId: string;
};
