// Tables that are sorted by a click on a column's name: numbers from the largest, texts from the first.

function compareValues(first, second) {
  const [a, b] = [Number(first), Number(second)];
  if (first.trim() !== "" && second.trim() !== "" && !Number.isNaN(a) && !Number.isNaN(b)) return a - b;
  return first.localeCompare(second, "en", { numeric: true });
}

function sortTable(table, column, direction) {
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row) => [row.cells[column].dataset.value, row]);
  keyed.sort(([first], [second]) => {
    if (first === undefined || second === undefined) return (first === undefined) - (second === undefined);
    return sign * compareValues(first, second);
  });
  body.append(...keyed.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = Array.from(table.tHead.rows[0].cells);
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const first = head.classList.contains("number") ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      const direction = before === first ? other : first;
      heads.forEach((each) => each.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", direction);
      sortTable(table, column, direction);
      say(`Sorted by ${head.textContent.trim()}, ${direction}.`);
    });
  });
}
