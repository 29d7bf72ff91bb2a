/* SPDX-License-Identifier: Apache-2.0
 * Lines over the last ten minutes, drawn by uPlot. The legend is ours: it names each line with its
 * newest value, or that under the pointer, and is what a screen reader hears. */

const perSecond = n => brief(n) + '/s';

const PLOT_HEIGHT = 112;

const charts = [
  {
    id: 'messages',
    title: 'Messages per second',
    format: perSecond,
    lines: [
      ['accepted', 'in', '--accent'],
      ['delivered', 'delivered', '--second'],
    ],
  },
  {
    id: 'octets',
    title: 'Octets per second',
    format: n => octets(n) + '/s',
    lines: [
      ['received', 'received', '--accent'],
      ['sent', 'sent', '--second'],
    ],
  },
  {
    id: 'queue',
    title: 'Deliveries in the queue',
    format: brief,
    lines: [
      ['waiting', 'waiting', '--accent'],
      ['ready', 'due', '--second'],
      ['held', 'held', '--warn'],
    ],
  },
  {
    id: 'trouble',
    title: 'Refused and deferred',
    format: perSecond,
    lines: [
      ['deferrals', 'deferred', '--warn'],
      ['failures', 'failed', '--bad'],
      ['rejected', 'rejected', '--second'],
    ],
  },
  {
    id: 'latency',
    title: 'Latency',
    format: duration,
    lines: [],
    choices: LATENCIES,
    chosen: 'delivery',
    isLogarithmic: true,
  },
  {
    id: 'connections',
    title: 'Connections',
    format: brief,
    lines: [
      ['sessions', 'clients', '--accent'],
      ['connections', 'next hops', '--second'],
      ['idle', 'idle', '--third'],
    ],
  },
  {
    id: 'load',
    title: 'Load of the cores',
    format: part => percent(part, 1),
    lines: [
      ['loadMost', 'busiest', '--accent'],
      ['loadMean', 'mean', '--second'],
    ],
  },
  {id: 'flush', title: 'Time of a flush', top: 1000, format: duration, lines: [['flush', 'mean', '--accent']]},
];

const chartLines = chart =>
  chart.choices === undefined
    ? chart.lines
    : [
        ['p50', '--accent'],
        ['p95', '--second'],
        ['p99', '--warn'],
      ].map(([part, colour]) => [chart.chosen + part, part, colour]);

const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function legendShow(chart, index) {
  chartLines(chart).forEach(([name], i) => {
    const values = history.values[name];
    const at = index === null || index === undefined ? values.length - 1 : index;
    chart.shown[i].textContent = chart.format(values.length === 0 ? null : values[at]);
  });
}

function legendMake(chart) {
  chart.shown = [];
  chart.legend.replaceChildren(
    ...chartLines(chart).map(([, label, paint]) => {
      const mark = element('i'),
        value = element('em');
      mark.style.color = `var(${paint})`;
      chart.shown.push(value);
      return element('span', {}, mark, label + ' ', value);
    }),
  );
}

/* What is remembered, a minute at least. */
function timeRange() {
  const end = history.time.length > 0 ? history.time[history.time.length - 1] : Date.now() / 1000;
  return [Math.max(end - HISTORY, Math.min(end - MINUTE, history.time.length > 0 ? history.time[0] : end)), end];
}

/* Whole powers of ten around what there is; of microseconds, a millisecond to a second if there is nothing. */
const decades = (plot, low, high) =>
  low > 0 && high > 0 ? [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.01))] : [1e3, 1e6];

/* Powers of ten, or every other or third of them when there are many. */
function powers(plot, axis, low, high) {
  const first = Math.round(Math.log10(low)),
    count = Math.round(Math.log10(high)) - first,
    step = Math.ceil(count / 3) || 1;
  return Array.from({length: Math.floor(count / step) + 1}, (_, i) => 10 ** (first + i * step));
}

function plotOptions(chart) {
  const axis = {
    stroke: colour('--muted'),
    font: '11px system-ui, sans-serif',
    grid: {stroke: colour('--line'), width: 1},
    ticks: {show: false},
  };
  return {
    width: Math.max(chart.place.clientWidth, 50),
    height: chart.place.clientHeight || PLOT_HEIGHT,
    padding: [8, 16, 0, 0],
    legend: {show: false},
    cursor: {y: false, drag: {x: false, y: false}, points: {size: 5}, sync: {key: 'time'}},
    scales: {
      x: {time: true, range: timeRange},
      y: chart.isLogarithmic
        ? {distr: 3, range: decades}
        : {range: (plot, low, high) => [0, high > 0 ? high * 1.1 : chart.top || 1]},
    },
    axes: [
      {
        ...axis,
        size: 22,
        space: 70,
        values: (plot, splits) => splits.map(at => clock(new Date(at * 1000)).slice(0, at % 60 === 0 ? 5 : 8)),
      },
      {
        ...axis,
        size: 58,
        space: 28,
        ...(chart.isLogarithmic ? {splits: powers, filter: (plot, splits) => splits} : {}),
        values: (plot, splits) =>
          splits.map(n => (n === 0 ? '0' : n === null ? '' : chart.format(n).replace('/s', ''))),
      },
    ],
    series: [
      {},
      ...chartLines(chart).map(([, label, paint]) => ({
        label,
        stroke: colour(paint),
        width: 1.5,
        points: {show: false},
        spanGaps: false,
      })),
    ],
    hooks: {setCursor: [plot => legendShow(chart, plot.cursor.idx)]},
  };
}

const plotData = chart => [history.time, ...chartLines(chart).map(([name]) => history.values[name])];

function plotMake(chart) {
  if (chart.plot) chart.plot.destroy();
  legendMake(chart);
  chart.plot = new uPlot(plotOptions(chart), plotData(chart), chart.place);
  legendShow(chart, null);
}

function chartMake(chart) {
  chart.legend = element('div', {class: 'legend'});
  chart.place = element('div', {
    class: 'plot',
    role: 'img',
    'aria-label': chart.title + ', over the last ten minutes; the numbers are in the caption',
  });
  const head = element('div', {}, element('b', {}, chart.title));
  if (chart.choices !== undefined)
    head.append(
      switchMake(chart.title, chart.choices, chart.chosen, chosen => {
        chart.chosen = chosen;
        plotMake(chart);
      }),
    );
  chart.figure = element(
    'figure',
    {id: 'chart-' + chart.id},
    element('figcaption', {}, head, chart.legend),
    chart.place,
  );
  $('charts').append(chart.figure);
  new ResizeObserver(() => {
    if (chart.plot && chart.place.clientWidth > 0)
      chart.plot.setSize({width: chart.place.clientWidth, height: chart.place.clientHeight});
  }).observe(chart.place);
}

/* Colours are read when a plot is made: after a change of theme, too. */
function chartsMake() {
  for (const chart of charts) {
    if (chart.figure === undefined) chartMake(chart);
    plotMake(chart);
  }
}

function chartsDraw() {
  for (const chart of charts) {
    const isTold =
      chart.choices === undefined ||
      (history.minute.length > 0 && history.minute[history.minute.length - 1].status.latency !== undefined);
    chart.figure.hidden = !isTold;
    if (!isTold) continue;
    chart.plot.setData(plotData(chart));
    legendShow(chart, chart.plot.cursor.idx);
  }
}
