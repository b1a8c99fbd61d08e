// Reads a stream with the client module, as told by arguments: the module, the URL, and options in JSON. What it is given
// goes to standard output, a line of JSON each. `tokens` are given out one after the other, the last one again and again; one
// that is null never comes.
// A line on standard input is an array of feeds, or ends it.
import { createInterface } from 'node:readline';

const [, , module, url, given] = process.argv;
const { subscribe } = await import(module);
const say = (kind, ...said) => console.log(JSON.stringify([kind, ...said]));
const { tokens, ...options } = JSON.parse(given);
const give = renewal => {
  say('token', renewal);
  return (tokens.length > 1 ? tokens.shift() : tokens[0]) ?? new Promise(() => {});
};
const stream = subscribe(url, {
  ...options,
  token: tokens && give,
  onEvent: event => say('event', event),
  onGap: gap => say('gap', gap.reason),
  onSnapshot: part => say('snapshot', part),
  onControl: (name, data) => say('control', name, data),
  onState: (state, failure) => {
    say('state', state, failure?.status ?? null);
    if (state === 'closed') process.exit();
  },
});
createInterface({ input: process.stdin }).on('line', line => (line ? stream.setFeeds(JSON.parse(line)) : stream.close()));
