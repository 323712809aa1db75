// Which items are shown: every filter is a test of one item.

const isWrong = (letter) => letter !== "" && letter !== "r";

const SHOWN = [
  { name: "all", title: "all items", test: () => true },
  { name: "counted-wrong", title: "counted as wrong", judged: true, test: (s, i) => isWrong(first(s, i)) },
  { name: "right", title: "right", judged: true, test: (s, i) => first(s, i) === "r" },
  { name: "wrong", title: "wrong label", judged: true, test: (s, i) => "wp".includes(first(s, i)) },
  { name: "unparsed", title: "no label found", judged: true, test: (s, i) => first(s, i) === "u" },
  { name: "failed", title: "failed", test: (s, i) => s.run.status[i] === "f" },
  { name: "truncated", title: "truncated or cut", test: (s, i) => "tc".includes(s.run.status[i]) },
  { name: "empty", title: "empty answer", test: (s, i) => answerOf(s.run, i).trim() === "" },
  { name: "noted", title: "with a note", test: (s, i) => i in s.run.notes },
  { name: "differ", title: "answers differ", paired: true, test: (s, i) => answerOf(s.run, i) !== answerOf(s.other, i) },
  {
    name: "first-right", title: "only the first run right", paired: true, judged: true,
    test: (s, i) => first(s, i) === "r" && second(s, i) !== "r",
  },
  {
    name: "second-right", title: "only the second run right", paired: true, judged: true,
    test: (s, i) => first(s, i) !== "r" && second(s, i) === "r",
  },
];

function first(view, item) {
  return outcomeOf(view.run, view.scorer, item);
}

function second(view, item) {
  return outcomeOf(view.other, view.scorer, item);
}

const searched = { of: "", texts: [] };

// What the text is looked for in, lower-cased once for a run or a pair of them.
function searchedTexts(view) {
  const of = `${view.run.key} ${view.other?.key ?? ""}`;
  if (searched.of !== of) {
    const runs = view.other ? [view.run, view.other] : [view.run];
    searched.of = of;
    searched.texts = view.run.items.ids.map((id, item) => {
      const said = runs.flatMap((run) => [answerOf(run, item), run.errors[item] ?? ""]);
      return [id, ...referencesOf(view.run.items, item), ...said].join("\n").toLowerCase();
    });
  }
  return searched.texts;
}

// Places of the items that pass; `view` has run, other, scorer, show, class and text.
function shownItems(view) {
  const test = SHOWN.find((one) => one.name === view.show).test;
  const wanted = view.class === "" ? -1 : view.run.items.texts.indexOf(view.class);
  const text = view.text.trim().toLowerCase();
  const texts = text ? searchedTexts(view) : null;
  const places = [];
  for (let item = 0; item < view.run.n; item += 1) {
    if (view.class !== "" && !view.run.items.references[item].includes(wanted)) continue;
    if (texts !== null && !texts[item].includes(text)) continue;
    if (test(view, item)) places.push(item);
  }
  return places;
}
