// Reads a stream with the client module, as told by arguments: the module, the URL, and options in JSON. What it is given
// goes to standard output, a line of JSON each. `tokens` are given out one after the other, the last one again and again; one
// that is null never comes. `handled` are feeds with handlers of their own. A line on standard input is an array of feeds, one
// to `add` with a handler or to `remove`, or ends it.
import { createInterface } from 'node:readline';

const [, , module, url, given] = process.argv;
const { subscribe } = await import(module);
const say = (kind, ...said) => console.log(JSON.stringify([kind, ...said]));
const { tokens, handled, ...options } = JSON.parse(given);
const handler = event => say('handled', event);
const give = renewal => {
  say('token', renewal);
  return (tokens.length > 1 ? tokens.shift() : tokens[0]) ?? new Promise(() => {});
};
const stream = subscribe(url, {
  ...options,
  feeds: handled ? Object.fromEntries(handled.map(feed => [feed, handler])) : options.feeds,
  token: tokens && give,
  onEvent: event => say('event', event),
  onGap: gap => say('gap', gap.reason, ...(gap.feed ? [gap.feed] : [])),
  onSnapshot: (part, feed) => say('snapshot', part, ...(feed ? [feed] : [])),
  onControl: (name, data) => say('control', name, data),
  onState: (state, failure) => {
    say('state', state, failure?.status ?? null);
    if (failure?.status) say('why', failure.message);
    if (state === 'closed') process.exit();
  },
});
createInterface({ input: process.stdin }).on('line', line => {
  if (!line) return stream.close();
  const { add, remove, ...feeds } = JSON.parse(line);
  if (add) stream.addFeed(add, handler);
  else if (remove) stream.removeFeed(remove);
  else stream.setFeeds(Object.values(feeds));
});
