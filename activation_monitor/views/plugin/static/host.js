// What the page needs to know of TensorBoard around it. TensorBoard ships no library for
// this. The frame is of the same origin, so its address, its theme and its reload button
// can be read; where they cannot (a page that isolates frames), the tab works without.

const PREFIX = 'p.activation_monitor.';

function outside(read, otherwise) {
  try {
    return read(window.parent);
  } catch (error) {
    return otherwise;
  }
}

/** The settings in the address, a Map of names and strings. */
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
      // Not percent-encoded by us: no setting of ours.
    }
  }
  return found;
}

/** Puts the settings into the address, without a step in the browser's recording. */
export function writeAddress(settings) {
  const parts = [...settings].map(
    ([name, value]) => `${PREFIX}${name}=${encodeURIComponent(value)}`);
  outside((page) => {
    const others = page.location.hash.slice(1).split('&').filter(
      (part) => part && !part.startsWith(PREFIX));
    if (others[0] !== 'activation_monitor') return; // another tab is looked at
    page.history.replaceState(page.history.state, '', '#' + [...others, ...parts].join('&'));
  });
}

/** Calls back when a link with other settings was opened. */
export function onAddress(changed) {
  outside((page) => page.addEventListener('hashchange', () => changed(readAddress())));
}

/** Calls back with whether TensorBoard is dark, now and whenever it changes. */
export function onDarkMode(changed) {
  const body = outside((page) => page.document.body, null);
  if (body === null) {
    changed(false);
    return;
  }
  const tell = () => changed(body.classList.contains('dark-mode'));
  new MutationObserver(tell).observe(body, {attributes: true, attributeFilter: ['class']});
  tell();
}

/** Calls back when TensorBoard has reloaded its data: its button, or by itself. */
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
