// The elements of the page, without data.

import {element} from './dom.js';

/** The runs above, the lists on the left, and the places of the findings and the figures. */
export function page() {
  const card = (id, title, hint, open) =>
    element('details', {id: `${id}-card`, className: 'card', open},
      element('summary', {}, title), element('p', {className: 'dim'}, hint),
      element('div', {id, className: 'plot'}));
  const heading = (text) => element('th', {scope: 'col'}, text);
  return [
    element('header', {},
      element('div', {className: 'tools'},
        element('button', {id: 'fold', title: 'Show only the row of the selected run, or all'},
          element('strong', {id: 'run-count'})),
        element('span', {id: 'run-tools'},
          element('input', {type: 'search', id: 'run-filter', placeholder: 'filter runs'}),
          element('button', {id: 'all-runs', className: 'copy', title: 'Draw all listed runs'}, 'All'),
          element('button', {id: 'no-runs', className: 'copy', title: 'Draw none of the listed runs'}, 'None')),
        element('span', {id: 'status', className: 'dim', role: 'status'})),
      element('div', {id: 'run-box'},
        element('table', {},
          element('thead', {}, element('tr', {}, heading(''), heading('run'), heading('verdict, cause'),
            heading('worst layer'), heading('since'), heading('line to change'))),
          element('tbody', {id: 'runs'})))),
    element('aside', {},
      element('h2', {}, 'Statistic'), element('select', {id: 'statistic', ariaLabel: 'statistic'}),
      element('div', {id: 'reference-part'},
        element('h2', {}, 'Compare with'), element('select', {id: 'reference', ariaLabel: 'reference'})),
      element('h2', {}, 'Step ', element('output', {id: 'step-shown'})),
      element('input', {type: 'range', id: 'step', min: 0, step: 1, ariaLabel: 'step'}),
      element('h2', {}, 'Layers'),
      element('input', {type: 'search', id: 'layer-filter', placeholder: 'filter layers'}),
      element('div', {id: 'layers'}),
      element('p', {className: 'dim'},
        '↑ ↓ layer, ← → step. Shift selects up to four layers.')),
    element('main', {id: 'main'},
      element('p', {id: 'note', className: 'notice'}),
      element('p', {id: 'empty', className: 'notice', hidden: true}),
      element('section', {id: 'findings'}),
      element('div', {id: 'figures', hidden: true},
        element('div', {className: 'card'}, element('div', {id: 'profile', className: 'plot'})),
        element('div', {className: 'card'},
          element('div', {className: 'dim'}, 'Run ', element('strong', {className: 'focus'})),
          element('div', {id: 'heat', className: 'plot over-steps'}),
          element('p', {className: 'dim'}, 'Click a cell to select its layer and its step. ',
            element('span', {id: 'thinned'}))),
        element('div', {className: 'card'}, element('div', {id: 'layers-drawn'})),
        card('comparison', 'Runs compared',
          'At the first and at the selected step, with the ratio to the reference.', true),
        card('graph', 'Layer graph',
          'One run at the selected step, with its findings.', false))),
  ];
}
