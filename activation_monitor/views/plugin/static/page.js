// The elements of the page, without data.

import {element} from './dom.js';

/** The lists on the left, and the places of the findings and the figures. */
export function page() {
  const card = (id, title, hint, open) => {
    const made = element('details', {id: `${id}-card`, className: 'card', open},
      element('summary', {}, title), element('p', {className: 'dim'}, hint),
      element('div', {id, className: 'plot'}));
    return made;
  };
  return [
    element('aside', {},
      element('h2', {}, 'Runs'), element('div', {id: 'runs'}),
      element('h2', {}, 'Statistic'), element('select', {id: 'statistic', ariaLabel: 'statistic'}),
      element('h2', {}, 'Step ', element('output', {id: 'step-shown'})),
      element('input', {type: 'range', id: 'step', min: 0, step: 1, ariaLabel: 'step'}),
      element('h2', {}, 'Layers'),
      element('input', {type: 'search', id: 'layer-filter', placeholder: 'filter'}),
      element('div', {id: 'layers'}),
      element('p', {className: 'dim'}, 'Shift-click to select up to four.')),
    element('main', {id: 'main'},
      element('p', {id: 'status', className: 'dim', role: 'status'}),
      element('p', {id: 'note', className: 'notice'}),
      element('p', {id: 'empty', className: 'notice', hidden: true}),
      element('div', {id: 'findings'}),
      element('div', {id: 'figures', hidden: true},
        element('div', {className: 'card'}, element('div', {id: 'profile', className: 'plot'})),
        element('div', {className: 'card'},
          element('div', {className: 'dim'}, 'Run ', element('strong', {className: 'focus'})),
          element('div', {id: 'heat', className: 'plot'}),
          element('p', {className: 'dim'}, 'Click a cell to show its layer below. ',
            element('span', {id: 'thinned'}))),
        element('div', {className: 'card'}, element('div', {id: 'layers-drawn'})),
        card('comparison', 'Runs compared',
          'At the first and at the selected step, with the ratio to the first run.', true),
        card('graph', 'Layer graph',
          'One run at the selected step, with its findings.', false))),
  ];
}
