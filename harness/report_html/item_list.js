// The list of items: only the rows in sight exist, so that its length does not matter.

const ROW_HEIGHT = 30; // --row in the style
const ROWS_BEYOND = 8;

class ItemList {
  // `onChoose(item)` is called when another item is chosen by mouse or key.
  constructor(onChoose) {
    this.box = byId("list");
    this.rows = byId("rows");
    this.onChoose = onChoose;
    this.view = null;
    this.places = [];
    this.at = -1;
    this.isDue = false;
    this.box.addEventListener("scroll", () => this.drawSoon());
    this.box.addEventListener("keydown", (event) => this.onKey(event));
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest("[data-at]");
      if (row !== null) this.choose(Number(row.dataset.at));
    });
    new ResizeObserver(() => this.drawSoon()).observe(this.box);
  }

  show(view, places, item) {
    this.view = view;
    this.places = places;
    this.at = places.indexOf(item);
    this.box.parentElement.classList.toggle("two", view.other !== null);
    this.box.setAttribute("aria-rowcount", places.length + 1);
    this.rows.style.height = `${places.length * ROW_HEIGHT}px`;
    this.drawHead();
    if (this.at >= 0) this.reveal();
    else this.box.scrollTop = 0;
    this.draw();
  }

  choose(at) {
    if (this.places.length === 0) return;
    this.at = Math.max(0, Math.min(at, this.places.length - 1));
    this.reveal();
    this.draw();
    this.onChoose(this.places[this.at]);
  }

  reveal() {
    const top = this.at * ROW_HEIGHT;
    const room = this.box.clientHeight - 2 * ROW_HEIGHT; // the head covers a row
    if (top < this.box.scrollTop) this.box.scrollTop = top;
    else if (top > this.box.scrollTop + room) this.box.scrollTop = top - room;
  }

  onKey(event) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / ROW_HEIGHT) - 2);
    const last = this.places.length - 1;
    const next = {
      ArrowDown: this.at + 1, ArrowUp: this.at - 1, PageDown: this.at + page, PageUp: this.at - page,
      Home: 0, End: last,
    }[event.key];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.choose(next);
  }

  drawSoon() {
    if (this.isDue) return;
    this.isDue = true;
    requestAnimationFrame(() => {
      this.isDue = false;
      this.draw();
    });
  }

  draw() {
    if (this.view === null) return;
    const start = Math.max(0, Math.floor(this.box.scrollTop / ROW_HEIGHT) - ROWS_BEYOND);
    const n = Math.ceil(this.box.clientHeight / ROW_HEIGHT) + 2 * ROWS_BEYOND;
    const drawn = [];
    for (let at = start; at < Math.min(start + n, this.places.length); at += 1) drawn.push(this.row(at));
    this.rows.replaceChildren(...drawn);
    const isDrawn = this.at >= start && this.at < start + drawn.length;
    if (isDrawn) this.box.setAttribute("aria-activedescendant", `row-${this.at}`);
    else this.box.removeAttribute("aria-activedescendant");
  }

  drawHead() {
    const names = ["", "item", "reference", this.view.run.model];
    if (this.view.other !== null) names.push("", this.view.other.model);
    const cells = names.map((name) => make("span", { role: "columnheader", title: name }, name || "\u00a0"));
    byId("list-head").replaceChildren(...cells);
  }

  row(at) {
    const item = this.places[at];
    const { run, other, scorer } = this.view;
    const row = make("div", {
      role: "row", id: `row-${at}`, "data-at": at, "aria-rowindex": at + 2, "aria-selected": at === this.at,
    });
    row.style.transform = `translateY(${at * ROW_HEIGHT}px)`;
    const references = referencesOf(run.items, item).join(", ");
    row.append(markCell(run, scorer, item), textCell(run.items.ids[item]), textCell(references));
    row.append(textCell(shortAnswer(run, item)));
    if (other !== null) row.append(markCell(other, scorer, item), textCell(shortAnswer(other, item)));
    return row;
  }
}

function textCell(text) {
  return make("span", { role: "gridcell", title: text.slice(0, 300) }, text.slice(0, 300));
}

function shortAnswer(run, item) {
  return run.errors[item] ?? (answerOf(run, item).trim() === "" ? "(empty)" : answerOf(run, item));
}

function markCell(run, scorer, item) {
  const letter = outcomeOf(run, scorer, item) || (run.status[item] === "f" ? "f" : "");
  if (letter === "") return make("span", { role: "gridcell" });
  const [mark, meaning] = OUTCOMES[letter];
  const cell = make("span", { role: "gridcell", class: `mark mark-${letter}`, title: meaning });
  cell.append(make("span", { "aria-hidden": "true" }, mark), make("span", { class: "hidden" }, meaning));
  return cell;
}
