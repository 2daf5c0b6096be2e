// Elements of the page. Children that are strings become text. Nothing in the page makes HTML
// of data, because the names of layers and runs may contain anything.

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** A name that is cut at its start if it is too long, because names differ at their ends. */
export const ending = (name) =>
  element('span', {className: 'text', title: name}, element('bdi', {dir: 'ltr'}, name));

const opened = new Map(); // by key, whether the user has opened it

/** A part that opens. What the user has opened or closed stays so when it is made again. */
export function openable(key, open, summary, ...children) {
  const made = element('details', {open: opened.get(key) ?? open}, summary, ...children);
  // The event `toggle` comes for a part that is made open, too.
  summary.onclick = () => opened.set(key, !made.open);
  return made;
}

/** Replaces the children of an element. The keyboard focus stays on the part of its key. */
export function replace(parent, children) {
  const key = parent.contains(document.activeElement)
    ? document.activeElement.dataset.key : undefined;
  const {scrollTop} = parent;
  parent.replaceChildren(...children);
  parent.scrollTop = scrollTop;
  if (key === undefined) return;
  const parts = [...parent.querySelectorAll('[data-key]')];
  parts.find((one) => one.dataset.key === key)?.focus({preventScroll: true});
}

/** Gives an element a key, see `replace`. */
export function keyed(key, made) {
  made.dataset.key = key;
  return made;
}

/** Loads a script. The promise resolves when the script has run. */
export function script(source) {
  return new Promise((resolve, reject) => {
    document.head.append(element('script', {src: source, onload: resolve, onerror: reject}));
  });
}

/** Copies text, also on a page that is not served securely and so has no clipboard. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch (error) {
      // The clipboard is refused in this frame. Use the old way.
    }
  }
  const field = element('textarea', {value: text, className: 'aside'});
  document.body.append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}

/** A button that copies a line. */
export function copyButton(text) {
  const button = element('button', {className: 'copy', title: 'Copy this line'}, 'Copy');
  button.onclick = async (event) => {
    event.stopPropagation(); // a click on the row has a meaning of its own
    await copy(text);
    button.textContent = 'Copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  };
  return button;
}
