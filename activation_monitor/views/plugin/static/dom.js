// Elements. Children that are strings become text: nothing here or elsewhere in the page
// makes HTML of data, for the names of layers and runs may be anything.

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

/** Loads a script file; resolves when it has run. */
export function script(source) {
  return new Promise((resolve, reject) => {
    document.head.append(element('script', {src: source, onload: resolve, onerror: reject}));
  });
}

/** Copies text, also where the page is not served securely and has no clipboard. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    try {
      await navigator.clipboard.writeText(text);
      return;
    } catch (error) {
      // Refused in this frame: the old way.
    }
  }
  const field = element('textarea', {value: text, className: 'aside'});
  document.body.append(field);
  field.select();
  document.execCommand('copy');
  field.remove();
}
