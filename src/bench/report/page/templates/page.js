"use strict";
document.documentElement.classList.add("has-script");
// Tables of class "sortable" are sorted by a click on a header, or by Enter or Space on it. Without this script they
// stand in the order in which they were written.
for (const table of document.querySelectorAll("table.sortable")) {
  const status = table.closest("section").querySelector(".sorted");
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(body, column, ascending);
      status.textContent = `Sorted by ${header.textContent.trim()}, ${ascending ? "ascending" : "descending"}.`;
    });
  });
}

function sort(body, column, ascending) {
  const rows = Array.from(body.rows, (row) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    const value = "v" in cell.dataset ? Number(cell.dataset.v) : null;
    return { row, text, value, unknown: text === "–" };
  });
  rows.sort((a, b) => {
    if (a.unknown !== b.unknown) return a.unknown ? 1 : -1; // what is not known comes last, either way
    const order = a.value !== null && b.value !== null
      ? a.value - b.value
      : a.text.localeCompare(b.text, undefined, { numeric: true });
    return ascending ? order : -order;
  });
  body.append(...rows.map((each) => each.row));
}
