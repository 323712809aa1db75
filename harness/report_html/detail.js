// Everything that is known of one item: its sound, what was asked and answered, and what scorers made of it.

function showDetail(view, item) {
  const { items } = view.run;
  const runs = view.other === null ? [view.run] : [view.run, view.other];
  byId("detail").replaceChildren(
    make("h3", { id: "detail-title" }, items.ids[item]),
    ...soundOf(items, item),
    facts([
      [items.kind === "classification" ? "class" : "reference", referencesOf(items, item).join("\n")],
      ["length", items.seconds[item] === null ? "not known" : `${items.seconds[item]} s`],
    ]),
    make("div", { class: "runs" }, ...runs.map((run) => answerSection(run, item))),
  );
}

function showNothing(text) {
  byId("detail").replaceChildren(make("p", {}, text));
}

function soundOf(items, item) {
  const address = audioOf(items, item);
  if (address === null) return [make("p", {}, items.audio_note)];
  const player = make("audio", { controls: "", preload: "none", src: address });
  player.setAttribute("aria-label", `Sound of ${items.ids[item]}`);
  const trouble = make("p", { role: "alert" });
  player.addEventListener("error", () => {
    trouble.textContent = `The browser cannot play ${decodeURIComponent(address)}: it is not there, or of a format it does not know.`;
  });
  return [player, trouble];
}

function answerSection(run, item) {
  const section = make("section", { "aria-label": `${run.model}, prompt ${run.prompt}` });
  section.append(make("h3", {}, run.model), make("small", {}, run.key));
  section.append(facts([["asked", run.prompt], ["status", STATUSES[run.status[item]]]]));
  if (item in run.errors) section.append(make("p", {}, "error"), make("pre", {}, run.errors[item]));
  else section.append(make("div", {}, "raw answer"), make("pre", { class: "answer" }, answerOf(run, item)));
  section.append(facts(run.scorers.map((scorer) => [`by ${scorer.name}`, verdict(scorer, item)])));
  section.append(facts(measurements(run, item)));
  return section;
}

function verdict(scorer, item) {
  if (scorer.outcomes === "") return scorer.reason;
  const labels = labelsOf(scorer, item).join(", ");
  const [mark, meaning] = OUTCOMES[scorer.outcomes[item]];
  return `${mark} ${labels ? `${labels} (${meaning})` : meaning}`;
}

function measurements(run, item) {
  const [audio, prompt, answer] = run.tokens[item];
  const rows = [
    ["answer took", `${run.answer_s[item]} s (its share of the batch)`],
    ["decoding took", `${run.load_s[item]} s`],
    ["tokens", `${audio} audio, ${prompt} prompt, ${answer} answer`],
  ];
  if (item in run.heard) rows.push(["heard", `${run.heard[item][0]} of ${run.heard[item][1]} frames (${run.length_policy})`]);
  if (run.stopped.includes(item)) rows.push(["ended", "cut at the limit of answer tokens"]);
  if (item in run.notes) rows.push(["notes", run.notes[item]]);
  return rows;
}

function facts(rows) {
  const list = make("dl");
  for (const [name, value] of rows) list.append(make("dt", {}, name), make("dd", {}, value));
  return list;
}
