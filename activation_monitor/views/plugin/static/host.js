// What the page needs from the TensorBoard page around it. TensorBoard has no library for
// this. The frame has the same origin, so the tab reads the address, the theme and the reload
// button of the outer page. On a page that isolates frames, the tab works without them.

const PREFIX = 'p.activation_monitor.';

function outside(read, otherwise) {
  try {
    return read(window.parent);
  } catch (error) {
    return otherwise;
  }
}

/** The settings in the address, a Map from names to strings. */
export function readAddress() {
  const found = new Map();
  const hash = outside((page) => page.location.hash, window.location.hash);
  for (const part of hash.slice(1).split('&')) {
    const [name, value] = part.split('=');
    try {
      const key = decodeURIComponent(name);
      if (value !== undefined && key.startsWith(PREFIX)) {
        found.set(key.slice(PREFIX.length), decodeURIComponent(value));
      }
    } catch (error) {
      // Not a setting of this tab, which are all percent-encoded.
    }
  }
  return found;
}

/** Writes the settings into the address, without an entry in the browser's history. */
export function writeAddress(settings) {
  const parts = [...settings].map(
    ([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  outside((page) => {
    const others = page.location.hash.slice(1).split('&').filter(
      (part) => part && !part.startsWith(PREFIX));
    if (others[0] !== 'activation_monitor') return; // another tab is open
    page.history.replaceState(page.history.state, '', '#' + [...others, ...parts].join('&'));
  });
}

/** Calls back when a link with other settings is opened. */
export function onAddress(changed) {
  outside((page) => page.addEventListener('hashchange', () => changed(readAddress())));
}

/** Calls back with whether TensorBoard is dark, now and at each change. */
export function onDarkMode(changed) {
  const body = outside((page) => page.document.body, null);
  if (body === null) {
    changed(false);
    return;
  }
  const report = () => changed(body.classList.contains('dark-mode'));
  new MutationObserver(report).observe(body, {attributes: true, attributeFilter: ['class']});
  report();
}

/** Calls back when TensorBoard has reloaded its data, by its button or automatically. */
export function onReload(changed) {
  const {port1, port2} = new MessageChannel();
  port1.onmessage = ({data}) => {
    const message = JSON.parse(data);
    if (message.isReply) return;
    if (message.type === 'experimental.DataReloaded') changed();
    port1.postMessage(JSON.stringify(
      {type: message.type, id: message.id, payload: null, error: null, isReply: true}));
  };
  window.parent.postMessage('experimental.bootstrap', '*', [port2]);
}
