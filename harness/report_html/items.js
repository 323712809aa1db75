// The part of the page with items: choices, filters, keys, and the address that says what is looked at.

const KEPT = ["run", "with", "scorer", "show", "class", "text", "item"];
const DEFAULTS = { run: "", with: "", scorer: "", show: "all", class: "", text: "", item: "" };

function stateOfAddress() {
  const parts = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(KEPT.map((name) => [name, parts.get(name) ?? DEFAULTS[name]]));
}

function fill(select, options, value) {
  const nodes = options.map(([name, title, isOff]) => {
    const option = make("option", { value: name }, title);
    option.disabled = Boolean(isOff);
    return option;
  });
  select.replaceChildren(...nodes);
  select.value = value;
}

const runTitle = (run) => `${run.model}, ${run.task}, prompt ${run.prompt_name}, ${run.key.split("/").pop()}`;

class Browser {
  constructor() {
    this.state = stateOfAddress();
    this.model = "";
    this.list = new ItemList((item) => this.onItem(item));
    const models = [...new Set(RUNS.map((run) => run.model))].sort();
    fill(byId("model"), [["", "all"], ...models.map((name) => [name, name])], "");
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("model").addEventListener("change", () => this.onModel());
    for (const name of ["run", "with", "scorer", "show", "class"]) {
      byId(name).addEventListener("change", () => this.change({ [name]: byId(name).value }));
    }
    let due = 0;
    byId("text").addEventListener("input", () => {
      clearTimeout(due);
      due = setTimeout(() => this.change({ text: byId("text").value }), 120);
    });
    addEventListener("hashchange", () => this.onAddress());
    document.addEventListener("keydown", (event) => this.onKey(event));
  }

  start() {
    const isAsked = this.state.run !== "";
    this.refresh();
    if (isAsked) byId("items").scrollIntoView();
  }

  onAddress() {
    const asked = stateOfAddress();
    if (asked.run === "") return;
    this.state = asked;
    this.refresh();
    byId("items").scrollIntoView();
    this.list.box.focus({ preventScroll: true });
  }

  onModel() {
    this.model = byId("model").value;
    const runs = this.runsOfModel();
    this.change(runs.some((run) => run.key === this.state.run) ? {} : { run: runs[0].key });
  }

  onItem(item) {
    this.state.item = this.view.run.items.ids[item];
    showDetail(this.view, item);
    this.writeAddress();
  }

  change(part) {
    Object.assign(this.state, part);
    this.refresh();
    this.writeAddress();
  }

  runsOfModel() {
    return RUNS.filter((run) => this.model === "" || run.model === this.model);
  }

  refresh() {
    const { state } = this;
    if (state.run === "") state.run = this.runsOfModel()[0].key;
    const run = openRun(state.run);
    if (run === null) {
      this.showUnknown();
      return;
    }
    if (this.model !== "" && run.model !== this.model) this.model = byId("model").value = "";
    const partners = RUNS.filter((each) => each.set === run.set && each.key !== run.key);
    const other = partners.some((each) => each.key === state.with) ? openRun(state.with) : null;
    if (other === null) state.with = "";
    this.fillChoices(run, other, partners);
    this.view = { run, other, scorer: state.scorer, show: state.show, class: state.class, text: state.text };
    this.showItems();
  }

  fillChoices(run, other, partners) {
    const { state } = this;
    fill(byId("run"), this.runsOfModel().map((each) => [each.key, runTitle(each)]), run.key);
    const none = partners.length ? "nothing" : "nothing: no other run was asked the same items";
    fill(byId("with"), [["", none], ...partners.map((each) => [each.key, runTitle(each)])], state.with);
    const scorers = run.scorers.map((scorer) => scorer.name);
    if (!scorers.includes(state.scorer)) {
      state.scorer = (run.scorers.find((scorer) => scorer.outcomes !== "") ?? run.scorers[0])?.name ?? "";
    }
    fill(byId("scorer"), scorers.length ? scorers.map((name) => [name, name]) : [["", "none"]], state.scorer);
    const isJudged = [run, other].every((each) => each === null || scorerOf(each, state.scorer)?.outcomes);
    const options = SHOWN.map((one) => [one.name, one.title, (one.judged && !isJudged) || (one.paired && other === null)]);
    if (!options.some(([name, , isOff]) => name === state.show && !isOff)) state.show = "all";
    fill(byId("show"), options, state.show);
    const classes = run.items.kind === "classification" ? [...run.items.texts].sort() : [];
    if (!classes.includes(state.class)) state.class = "";
    fill(byId("class"), [["", "all"], ...classes.map((name) => [name, name])], state.class);
    if (document.activeElement !== byId("text")) byId("text").value = state.text;
    const reasons = [run, other].map((each) => (each === null ? "" : scorerOf(each, state.scorer)?.reason ?? ""));
    byId("scorer-note").textContent = reasons.find((reason) => reason !== "") ?? "";
  }

  showItems() {
    const { run } = this.view;
    const places = shownItems(this.view);
    const asked = this.state.item === "" ? -1 : run.items.ids.indexOf(this.state.item);
    this.list.show(this.view, places, asked);
    const count = `${places.length} of ${run.n} items`;
    byId("count").textContent = count;
    say(count);
    if (asked >= 0) showDetail(this.view, asked);
    else if (this.state.item !== "") showNothing(`This run was not asked the item '${this.state.item}'.`);
    else if (places.length) showNothing("Choose an item.");
    else showNothing("No item is like that.");
  }

  showUnknown() {
    const text = `This page has no run '${this.state.run}'.`;
    fill(byId("run"), [["", "choose a run"], ...RUNS.map((each) => [each.key, runTitle(each)])], "");
    byId("count").textContent = text;
    say(text);
    showNothing(text);
  }

  writeAddress() {
    const parts = new URLSearchParams();
    for (const name of KEPT) if (this.state[name] !== DEFAULTS[name]) parts.set(name, this.state[name]);
    history.replaceState(null, "", `#${parts}`);
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const isTyping = event.target.matches("input, select, textarea");
    if (event.key === "/" && !isTyping) {
      event.preventDefault();
      byId("text").focus();
    } else if (event.key === "Escape" && (event.target === byId("text") || byId("detail").contains(event.target))) {
      this.list.box.focus();
    } else if (event.key === "Enter" && event.target === this.list.box) {
      if (this.list.at < 0) this.list.choose(0);
      byId("detail").focus();
    } else if (event.key === "p" && !isTyping) {
      const player = byId("detail").querySelector("audio");
      if (player !== null && player.paused) player.play().catch(() => say("The sound cannot be played."));
      else if (player !== null) player.pause();
    }
  }
}

if (RUNS.length > 0) new Browser().start();
