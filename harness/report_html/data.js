// The data in the page: columns that are read when a run is first looked at.

const readColumns = new Map();

function columnsOf(name) {
  if (!readColumns.has(name)) readColumns.set(name, JSON.parse(byId(`data-${name}`).textContent));
  return readColumns.get(name);
}

const RUNS = columnsOf("index");
const placeOfRun = (key) => RUNS.findIndex((run) => run.key === key);
const asList = (value) => (Array.isArray(value) ? value : [value]);

// A run of the page with the items that it was asked, or null.
function openRun(key) {
  const place = placeOfRun(key);
  if (place < 0) return null;
  const items = columnsOf(`set-${RUNS[place].set}`);
  return { ...RUNS[place], items, ...columnsOf(`run-${place}`), set: RUNS[place].set };
}

const answerOf = (run, item) => run.texts[run.answers[item]];
const referencesOf = (items, item) => items.references[item].map((place) => items.texts[place]);
const scorerOf = (run, name) => run.scorers.find((scorer) => scorer.name === name);
const outcomeOf = (run, scorer, item) => scorerOf(run, scorer)?.outcomes[item] ?? "";

function labelsOf(scorer, item) {
  return scorer.labels.length ? asList(scorer.labels[item]).map((place) => scorer.names[place]) : [];
}

function audioOf(items, item) {
  return items.audio[item] === 0 ? null : items.audio_base + items.audio[item];
}

const OUTCOMES = {
  r: ["\u2713", "right"],
  p: ["\u2248", "some of several right"],
  w: ["\u2717", "wrong"],
  u: ["?", "no label found"],
  f: ["!", "failed or truncated"],
};
const STATUSES = {
  o: "ok",
  t: "truncated: the model heard only a part, and it counts as failed",
  c: "cut as the model's length policy says, and answered",
  f: "failed",
};
