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
