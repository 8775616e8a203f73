"use strict";
// Tables whose heads are clicked are sorted by that column: numbers by data-value, words by their text.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falls = head.getAttribute("aria-sort") === "descending" ? false : head.getAttribute("aria-sort") === "ascending" ? true : head.classList.contains("number");
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falls ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const number = head.classList.contains("number");
      const order = (a, b) => (number ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b)));
      body.append(...[...body.rows].sort((a, b) => (falls ? order(b, a) : order(a, b))));
    });
  });
}
